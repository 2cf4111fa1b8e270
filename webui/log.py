"""JSON lines on stderr: one event name and its fields. Never a prompt, a picture or a key."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime

_logger = logging.getLogger("webui")


class JsonLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def to_stderr() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLine())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    for chatty in ("httpx", "httpx2", "httpcore", "httpcore2"):  # a line per request to the gateway
        logging.getLogger(chatty).setLevel(logging.WARNING)
    logging.captureWarnings(True)


def event(name: str, **fields: object) -> None:
    _logger.info(name, extra={"fields": fields})
