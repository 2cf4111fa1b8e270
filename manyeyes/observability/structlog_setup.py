"""Configures structlog for the log format, for the controller and the adapter.

Warnings of other libraries get the same format.
"""

import logging
import sys
import time

import structlog
from structlog.typing import EventDict, WrappedLogger

from manyeyes.observability.log_format import JsonFormatter, json_line


def configure_structlog(part: str) -> None:
    """Configures structlog and Python's logging to write to standard output."""

    def render(_: WrappedLogger, level: str, fields: EventDict) -> str:
        return json_line(
            time.time(), "error" if level == "exception" else level, part, str(fields.pop("event")), fields
        )

    structlog.configure(
        processors=[structlog.processors.format_exc_info, render],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonFormatter(part))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.captureWarnings(True)
