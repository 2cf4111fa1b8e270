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
    found = PREFIX.match(text)
    if not found:
        return read_line("compose", text)
    return read_line(found["service"], found["text"], re.sub(r"(\.\d{3})\d*Z$", r"\1Z", found["at"] or ""))


def read_line(service: str, text: str, at: str = "") -> LogLine:
    """Parses one line of a service. `at`: the time at which it was read, for lines without a time."""
    text = COLOURS.sub("", text).rstrip()
    try:
        said = json.loads(text) if text.startswith("{") else None
    except ValueError:
        said = None
    if isinstance(said, dict):
        return _object(service, said, at)
    return _words(service, text, at)


def _object(service: str, said: dict[str, object], at: str) -> LogLine:
    told = str(said.pop("at", None) or at or said.get("time") or said.get("t") or said.get("ts") or "")
    level = LEVEL_SPELLINGS.get(str(said.pop("level", "info")).lower(), "info")
    part = str(said.pop("part", "") or _part(service))
    if "event" in said:
        return LogLine(service, told, level, part, str(said.pop("event")), said)
    for other in ("time", "t", "ts"):
        said.pop(other, None)
    message = str(said.pop("msg", "") or said.pop("message", ""))
    return LogLine(service, told, level, part, "said", {"message": message, **said})


def _words(service: str, text: str, at: str) -> LogLine:
    fields: dict[str, object] = {"engine": service} if _part(service) == "engine" else {}
    if found := NGINX_ERROR.match(text):
        if found["connection"]:
            fields["connection"] = int(found["connection"])
        level = LEVEL_SPELLINGS.get(found["level"], "info")
        return LogLine(
            service,
            at or found["at"].replace("/", "-").replace(" ", "T") + "Z",
            level,
            _part(service),
            "nginx",
            {**fields, "message": found["text"]},
        )
    level_found, message = LOGFMT_LEVEL.search(text), LOGFMT_MESSAGE.search(text)
    level = LEVEL_SPELLINGS.get(level_found[1].lower(), "info") if level_found else "info"
    said = (message[1] or message[2] or text) if message else text
    return LogLine(service, at, level, _part(service), "said", {**fields, "message": said})


def _part(service: str) -> str:
    """The part of a service. Every service that is not in the two lists is an engine."""
    if service in PARTS or service in OTHERS:
        return service
    return "engine"


OTHERS = frozenset({
    "compose", "containers", "mps", "loadtest", "locust", "prometheus", "grafana", "alertmanager", "nginx-exporter",
    "node-exporter", "dcgm-exporter", "loki", "alloy", "jaeger",
})  # fmt: skip
"""Services that are not engines and may write another log format."""


TINT = {"debug": "2", "warning": "33", "error": "31", "critical": "1;31"}
WHO = 11
QUIET = frozenset({"part", "engine", "pool", "connection"})
"""Fields that are already in the head of the line, or that are of no use to people."""


def format_line(line: LogLine, columns: int | None, colours: bool) -> str:
    """The line as text, wrapped at `columns`; None: one line of any length."""
    who = line.engine if line.part == "engine" and line.engine else line.service
    head = f"{line.at[11:23] or '--:--:--.---':12} {who:{WHO}.{max(WHO, len(who))}} "
    mark = "" if line.level in ("info", "debug") else f"{line.level.upper()} "
    text = f"{mark}{format_sentence(line)}"
    if columns:
        wide = max(columns - len(head), 20)
        parts = textwrap.wrap(text, wide, break_on_hyphens=False) or [""]
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
        return _request(fields)
    if told := fields.get("sentence") or fields.get("message"):
        rest = _rest(fields, {"sentence", "message", "logger", "state", "address", "source", "caller"})
        return f"{told}{f' ({rest})' if rest else ''}"
    return f"{line.event} {_rest(fields, set())}".rstrip()


def _request(fields: object) -> str:
    f = fields if isinstance(fields, dict) else {}
    by = f" by {f['engine']}" if f.get("engine") else ""
    instead = f" instead of {f['fallback']}" if f.get("fallback") else ""
    pool = f" of {f['pool']}" if f.get("pool") else ""
    cache = ", from the cache" if f.get("cache") == "HIT" else ""
    key = f", key {f['key']}" if f.get("key") else ""
    return (
        f"{f.get('status')} {f.get('method')} {f.get('path')}{by}{pool}{instead} in {f.get('total_s')} s"
        f"{cache}{key}, request {f.get('request')}"
    )


def _rest(fields: object, without: set[str]) -> str:
    f = dict(fields) if isinstance(fields, dict) else {}
    if failed := str(f.get("exception", "")).strip():
        f["exception"] = failed.splitlines()[-1]  # RAW=1 shows all of it
    kept = {key: value for key, value in f.items() if key not in QUIET | without and value not in ("", None)}
    return ", ".join(f"{key} {value}" for key, value in kept.items())
