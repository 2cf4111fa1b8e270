"""JSON log of the page, formatted by manyeyes/observability/log_format.py. It has no prompts, images or keys."""

import logging
import sys

from manyeyes.observability.log_format import JsonFormatter

_logger = logging.getLogger("webui")


def configure_logging() -> None:
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonFormatter("webui"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    for chatty in ("httpx", "httpx2", "httpcore", "httpcore2"):  # they log every request to the gateway
        logging.getLogger(chatty).setLevel(logging.WARNING)
    logging.captureWarnings(True)


def log_event(name: str, **fields: object) -> None:
    _logger.info(name, extra={"fields": fields})
