"""One JSON line an event, on standard output, in the form that all parts write: manyeyes/observability/log_format.py."""

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
    """What uvicorn and others warn of takes the same form."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonFormatter("engine", _OWN))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.captureWarnings(True)
