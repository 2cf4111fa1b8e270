"""A Line for people: time, who, what; coloured and broken at the terminal's width, or on one line where there is no terminal."""

import textwrap

from manyeyes.observability.log_parser import Line

TINT = {"debug": "2", "warning": "33", "error": "31", "critical": "1;31"}
WHO = 11
QUIET = frozenset({"part", "engine", "pool", "connection"})
"""Said by the line's beginning, or of no use to people."""


def shown(line: Line, columns: int | None, colours: bool) -> str:
    """`columns` None: one line, however long."""
    who = line.engine if line.part == "engine" and line.engine else line.service
    head = f"{line.at[11:23] or '--:--:--.---':12} {who:{WHO}.{max(WHO, len(who))}} "
    text = f"{_mark(line.level)}{sentence(line)}"
    if columns:
        wide = max(columns - len(head), 20)
        parts = textwrap.wrap(text, wide, break_on_hyphens=False) or [""]
        text = f"\n{' ' * len(head)}".join(parts)
    if not colours:
        return f"{head}{text}"
    return f"\x1b[2m{head}\x1b[0m{_tinted(text, line.level)}"


def _mark(level: str) -> str:
    return "" if level in ("info", "debug") else f"{level.upper()} "


def _tinted(text: str, level: str) -> str:
    return f"\x1b[{TINT[level]}m{text}\x1b[0m" if level in TINT else text


def sentence(line: Line) -> str:
    """What a line says, in words."""
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
        f["exception"] = failed.splitlines()[-1]  # the whole of it: RAW=1
    kept = {key: value for key, value in f.items() if key not in QUIET | without and value not in ("", None)}
    return ", ".join(f"{key} {value}" for key, value in kept.items())
