"""Any part's line -> Line. What is not in our form (nginx's error log, Prometheus, what a library prints) is put into it here."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from manyeyes.observability.log_format import LEVELS, line

PARTS = ("gateway", "controller", "adapter", "webui", "models")
PREFIX = re.compile(r"^(?P<service>\S+?)-(?P<number>\d+)\s*\| (?:(?P<at>\d{4}-\d\d-\d\dT[0-9:.]+Z) ?)?(?P<text>.*)$")
"""How `docker compose logs --timestamps` begins a line."""
NGINX_ERROR = re.compile(
    r"^(?P<at>\d{4}/\d\d/\d\d \d\d:\d\d:\d\d) \[(?P<level>\w+)\] \d+#\d+: (?:\*(?P<connection>\d+) )?(?P<text>.*)$"
)
LOGFMT_LEVEL = re.compile(r"\blevel=(\w+)")
LOGFMT_MESSAGE = re.compile(r'\bmsg="((?:[^"\\]|\\.)*)"|\bmsg=(\S+)')
SPELLED = {
    **{level: level for level in LEVELS},
    **{"notice": "info", "warn": "warning", "err": "error", "eror": "error", "dbug": "debug"},
    **dict.fromkeys(("crit", "alert", "emerg", "fatal", "panic"), "critical"),
}
COLOURS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


@dataclass(frozen=True)
class Line:
    """One line in the one form."""

    service: str
    """The container's, or the process's: gateway, gpu-0, prometheus."""
    at: str
    level: str
    part: str
    event: str
    fields: Mapping[str, object]
    """The rest, `request`, `engine` and `pool` among it."""

    @property
    def request(self) -> str:
        return str(self.fields.get("request", ""))

    @property
    def engine(self) -> str:
        return str(self.fields.get("engine", ""))

    @property
    def at_s(self) -> float:
        """Unix time; 0 where the line has none."""
        try:
            return datetime.fromisoformat(self.at).timestamp()
        except ValueError:
            return 0.0

    def text(self) -> str:
        """As JSON, whatever it was before."""
        return line(self.at_s, self.level, self.part, self.event, self.fields)


def composed(text: str) -> Line:
    """A line of `docker compose logs --timestamps`."""
    found = PREFIX.match(text)
    if not found:
        return read("compose", text)
    return read(found["service"], found["text"], _milliseconds(found["at"] or ""))


def read(service: str, text: str, at: str = "") -> Line:
    """One line of a service; `at` is when it was taken, for lines that do not say."""
    text = COLOURS.sub("", text).rstrip()
    try:
        said = json.loads(text) if text.startswith("{") else None
    except ValueError:
        said = None
    if isinstance(said, dict):
        return _object(service, said, at)
    return _words(service, text, at)


def _object(service: str, said: dict[str, object], at: str) -> Line:
    told = str(said.pop("at", None) or at or said.get("time") or said.get("t") or said.get("ts") or "")
    level = SPELLED.get(str(said.pop("level", "info")).lower(), "info")
    part = str(said.pop("part", "") or _part(service))
    if "event" in said:
        return Line(service, told, level, part, str(said.pop("event")), said)
    for other in ("time", "t", "ts"):
        said.pop(other, None)
    message = str(said.pop("msg", "") or said.pop("message", ""))
    return Line(service, told, level, part, "said", {"message": message, **said})


def _words(service: str, text: str, at: str) -> Line:
    fields: dict[str, object] = {"engine": service} if _part(service) == "engine" else {}
    if found := NGINX_ERROR.match(text):
        if found["connection"]:
            fields["connection"] = int(found["connection"])
        level = SPELLED.get(found["level"], "info")
        return Line(
            service,
            at or found["at"].replace("/", "-").replace(" ", "T") + "Z",
            level,
            _part(service),
            "nginx",
            {**fields, "message": found["text"]},
        )
    level_found, message = LOGFMT_LEVEL.search(text), LOGFMT_MESSAGE.search(text)
    level = SPELLED.get(level_found[1].lower(), "info") if level_found else "info"
    said = (message[1] or message[2] or text) if message else text
    return Line(service, at, level, _part(service), "said", {**fields, "message": said})


def _part(service: str) -> str:
    """Engines have names of their own; third parties go by their service."""
    if service in PARTS or service in OTHERS:
        return service
    return "engine"


OTHERS = frozenset(
    {
        *(
            "compose",
            "containers",
            "mps",
            "loadtest",
            "locust",
            "prometheus",
            "grafana",
            "alertmanager",
            "nginx-exporter",
        ),
        *("node-exporter", "dcgm-exporter", "loki", "alloy", "jaeger"),
    }
)
"""Services that are not engines and may not write our form."""


def _milliseconds(at: str) -> str:
    return re.sub(r"(\.\d{3})\d*Z$", r"\1Z", at)
