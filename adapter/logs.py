"""One JSON line per event on stdout."""

import logging

import structlog


def to_json() -> None:
    """Sets structlog up; the libraries keep to warnings."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)
