"""Defines the format of a log line: a JSON object with these fields first. Uses only the standard library, because it
also runs inside vLLM.

nginx writes the same format with its log_format (nginx/nginx.conf), and nginx/start.sh with printf.
tests/integration/test_log_lines.py checks every part.
"""

import json
import logging
from collections.abc import Mapping
from datetime import UTC, datetime

FIELDS = {
    "at": "time, RFC 3339, UTC, with milliseconds",
    "level": "debug, info, warning, error or critical",
    "part": "the writer: gateway, controller, adapter, media, webui, engine or models",
    "event": "what happened, a fixed name in snake_case",
    "request": "the request's id, as in X-Request-Id",
    "engine": "an engine's name, as in cluster.yaml",
    "pool": "a pool's name, as in cluster.yaml",
}
"""Fields that readers can rely on. The first four are in every line, the others if they apply."""
_JSON = json.JSONEncoder(ensure_ascii=False, default=str)
"""Created once: json.dumps() creates an encoder for each call with options."""
ALWAYS = ("at", "level", "part", "event")
LEVELS = ("debug", "info", "warning", "error", "critical")


def format_time(seconds: float) -> str:
    """Unix time in the format of log lines: 2026-11-21T19:36:56.123Z."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def json_line(at_s: float, level: str, part: str, event: str, fields: Mapping[str, object]) -> str:
    """One line without a line break.

    Fields that are None are left out; a value that JSON cannot represent is written as its str().
    """
    present = {name: value for name, value in fields.items() if value is not None}
    record = {"at": format_time(at_s), "level": level, "part": part, "event": event, **present}
    return _JSON.encode(record)


class JsonFormatter(logging.Formatter):
    """Formatter for Python's logging. A message that is a name becomes the event; other text becomes `message`, with
    the event `said`.

    A record's `fields` (from `extra={"fields": {...}}`) follow.
    """

    def __init__(self, part: str, fields: Mapping[str, object] | None = None) -> None:
        super().__init__()
        self.part = part
        self.fields = dict(fields or {})

    def format(self, record: logging.LogRecord) -> str:
        event, fields = self.read(record)
        if record.exc_info:
            fields = {**fields, "exception": self.formatException(record.exc_info)}
        level = record.levelname.lower()
        return json_line(record.created, level, self.part, event, {**self.fields, **fields})

    def read(self, record: logging.LogRecord) -> tuple[str, dict[str, object]]:
        """(event, fields) of a record."""
        fields = dict(getattr(record, "fields", {}))
        message = record.getMessage()
        if message.isidentifier() and message.islower():
            return message, fields
        return "said", {"logger": record.name, "message": message, **fields}
