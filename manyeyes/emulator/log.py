"""Writes one JSON line per event to standard output, in the log format of all parts:
manyeyes/observability/log_format.py."""

import logging
import os
import sys
import time

from manyeyes.observability.log_format import JsonFormatter, json_line

_OWN = {
    name: value
    for name, value in (("engine", os.environ.get("MANYEYES_ENGINE")), ("pool", os.environ.get("MANYEYES_POOL")))
    if value
}


def log(event: str, level: str = "info", **fields: object) -> None:
    print(json_line(time.time(), level, "engine", event, {**_OWN, **fields}), flush=True)


def libraries_too() -> None:
    """Writes warnings of uvicorn and other libraries in the same format."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonFormatter("engine", _OWN))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.captureWarnings(True)
