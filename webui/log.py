"""JSON log of the page, formatted by manyeyes/observability/log_format.py. It has no prompts, images or keys."""

import logging
import sys
import traceback
from types import TracebackType

from manyeyes.observability.log_format import JsonFormatter

_logger = logging.getLogger("webui")


class DiscreetFormatter(JsonFormatter):
    """Writes exceptions without their messages, which may quote what a visitor sent."""

    def formatException(
        self, ei: tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]
    ) -> str:
        frames = [f"{frame.filename}:{frame.lineno} in {frame.name}" for frame in traceback.extract_tb(ei[2])]
        return "\n".join([*frames, ei[0].__name__ if ei[0] else ""])


def configure_logging() -> None:
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(DiscreetFormatter("webui"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    for chatty in ("httpx", "httpx2", "httpcore", "httpcore2"):  # they log every request to the gateway
        logging.getLogger(chatty).setLevel(logging.WARNING)
    logging.captureWarnings(True)


def log_event(name: str, **fields: object) -> None:
    _logger.info(name, extra={"fields": fields})
