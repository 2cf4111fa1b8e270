"""Parses the log lines of all parts and formats them for people.

Lines in other formats (nginx's error log, Prometheus, output of libraries) are converted as far as possible.
"""

import json
import re
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from manyeyes.observability.log_format import LEVELS, json_line

PARTS = ("gateway", "controller", "adapter", "webui", "models")
PREFIX = re.compile(r"^(?P<service>\S+?)-(?P<number>\d+)\s*\| (?:(?P<at>\d{4}-\d\d-\d\dT[0-9:.]+Z) ?)?(?P<text>.*)$")
"""Start of a line of `docker compose logs --timestamps`."""
NGINX_ERROR = re.compile(
    r"^(?P<at>\d{4}/\d\d/\d\d \d\d:\d\d:\d\d) \[(?P<level>\w+)\] \d+#\d+: (?:\*(?P<connection>\d+) )?(?P<text>.*)$"
)
LOGFMT_LEVEL = re.compile(r"\blevel=(\w+)")
LOGFMT_MESSAGE = re.compile(r'\bmsg="((?:[^"\\]|\\.)*)"|\bmsg=(\S+)')
LEVEL_SPELLINGS = {
    **{level: level for level in LEVELS},
    **{"notice": "info", "warn": "warning", "err": "error", "eror": "error", "dbug": "debug"},
    **dict.fromkeys(("crit", "alert", "emerg", "fatal", "panic"), "critical"),
}
COLOURS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


@dataclass(frozen=True)
class LogLine:
    """One parsed log line."""

    service: str
    """Name of the container or process: gateway, gpu-0, prometheus."""
    at: str
    level: str
    part: str
    event: str
    fields: Mapping[str, object]
    """The other fields, including `request`, `engine` and `pool`."""

    @property
    def request(self) -> str:
        return str(self.fields.get("request", ""))

    @property
    def engine(self) -> str:
        return str(self.fields.get("engine", ""))

    @property
    def at_s(self) -> float:
        """Unix time; 0 if the line has no time."""
        try:
            return datetime.fromisoformat(self.at).timestamp()
        except ValueError:
            return 0.0

    def text(self) -> str:
        """The line as JSON, whatever its original format."""
        return json_line(self.at_s, self.level, self.part, self.event, self.fields)


def read_compose_line(text: str) -> LogLine:
    """Parses a line of `docker compose logs --timestamps`."""
    match = PREFIX.match(text)
    if not match:
        return read_line("compose", text)
    return read_line(match["service"], match["text"], re.sub(r"(\.\d{3})\d*Z$", r"\1Z", match["at"] or ""))


def read_line(service: str, text: str, at: str = "") -> LogLine:
    """Parses one line of a service. `at`: the time at which it was read, for lines without a time."""
    text = COLOURS.sub("", text).rstrip()
    try:
        record = json.loads(text) if text.startswith("{") else None
    except ValueError:
        record = None
    if isinstance(record, dict):
        return _from_json(service, record, at)
    return _from_text(service, text, at)


def _from_json(service: str, record: dict[str, object], at: str) -> LogLine:
    time = str(record.pop("at", None) or at or record.get("time") or record.get("t") or record.get("ts") or "")
    level = LEVEL_SPELLINGS.get(str(record.pop("level", "info")).lower(), "info")
    part = str(record.pop("part", "") or _part_of(service))
    if "event" in record:
        return LogLine(service, time, level, part, str(record.pop("event")), record)
    for key in ("time", "t", "ts"):
        record.pop(key, None)
    message = str(record.pop("msg", "") or record.pop("message", ""))
    return LogLine(service, time, level, part, "said", {"message": message, **record})


def _from_text(service: str, text: str, at: str) -> LogLine:
    fields: dict[str, object] = {"engine": service} if _part_of(service) == "engine" else {}
    if match := NGINX_ERROR.match(text):
        if match["connection"]:
            fields["connection"] = int(match["connection"])
        level = LEVEL_SPELLINGS.get(match["level"], "info")
        return LogLine(
            service,
            at or match["at"].replace("/", "-").replace(" ", "T") + "Z",
            level,
            _part_of(service),
            "nginx",
            {**fields, "message": match["text"]},
        )
    level_match, message = LOGFMT_LEVEL.search(text), LOGFMT_MESSAGE.search(text)
    level = LEVEL_SPELLINGS.get(level_match[1].lower(), "info") if level_match else "info"
    content = (message[1] or message[2] or text) if message else text
    return LogLine(service, at, level, _part_of(service), "said", {**fields, "message": content})


def _part_of(service: str) -> str:
    """The part of a service. Every service that is not in the two lists is an engine."""
    if service in PARTS or service in OTHER_SERVICES:
        return service
    return "engine"


OTHER_SERVICES = frozenset({
    "compose", "containers", "mps", "loadtest", "locust", "prometheus", "grafana", "alertmanager", "nginx-exporter",
    "node-exporter", "dcgm-exporter", "loki", "alloy", "jaeger",
})  # fmt: skip
"""Services that are not engines and may write another log format."""


TINT = {"debug": "2", "warning": "33", "error": "31", "critical": "1;31"}
NAME_WIDTH = 11
HIDDEN_FIELDS = frozenset({"part", "engine", "pool", "connection"})
"""Fields that are already in the head of the line, or that are of no use to people."""


def format_line(line: LogLine, columns: int | None, colours: bool) -> str:
    """The line as text, wrapped at `columns`; None: one line of any length."""
    name = line.engine if line.part == "engine" and line.engine else line.service
    head = f"{line.at[11:23] or '--:--:--.---':12} {name:{NAME_WIDTH}.{max(NAME_WIDTH, len(name))}} "
    level_prefix = "" if line.level in ("info", "debug") else f"{line.level.upper()} "
    text = f"{level_prefix}{format_sentence(line)}"
    if columns:
        width = max(columns - len(head), 20)
        parts = textwrap.wrap(text, width, break_on_hyphens=False) or [""]
        text = f"\n{' ' * len(head)}".join(parts)
    if not colours:
        return f"{head}{text}"
    if line.level in TINT:
        text = f"\x1b[{TINT[line.level]}m{text}\x1b[0m"
    return f"\x1b[2m{head}\x1b[0m{text}"


def format_sentence(line: LogLine) -> str:
    """The content of a line as a sentence."""
    fields = line.fields
    if line.event == "request" and line.part == "gateway":
        return _format_request(fields)
    if sentence := fields.get("sentence") or fields.get("message"):
        other_fields = _format_other_fields(
            fields, {"sentence", "message", "logger", "state", "address", "source", "caller"}
        )
        return f"{sentence}{f' ({other_fields})' if other_fields else ''}"
    return f"{line.event} {_format_other_fields(fields, set())}".rstrip()


def _format_request(fields: object) -> str:
    values = fields if isinstance(fields, dict) else {}
    engine = f" by {values['engine']}" if values.get("engine") else ""
    fallback = f" instead of {values['fallback']}" if values.get("fallback") else ""
    pool = f" of {values['pool']}" if values.get("pool") else ""
    cache = ", from the cache" if values.get("cache") == "HIT" else ""
    key = f", key {values['key']}" if values.get("key") else ""
    return (
        f"{values.get('status')} {values.get('method')} {values.get('path')}{engine}{pool}{fallback} in {values.get('total_s')} s"
        f"{cache}{key}, request {values.get('request')}"
    )


def _format_other_fields(fields: object, excluded: set[str]) -> str:
    values = dict(fields) if isinstance(fields, dict) else {}
    if exception := str(values.get("exception", "")).strip():
        values["exception"] = exception.splitlines()[-1]  # RAW=1 shows all of it
    shown = {
        key: value for key, value in values.items() if key not in HIDDEN_FIELDS | excluded and value not in ("", None)
    }
    return ", ".join(f"{key} {value}" for key, value in shown.items())
