"""The gateway's spans of one request, made of its line in the log: stock nginx writes none. Pure.

In OpenTelemetry's JSON form: https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding. Ids are hexadecimal there, numbers of
64 bits strings. The engine's own span has the same parent as those of the attempts.
"""

import hashlib
from collections.abc import Callable
from datetime import datetime
from typing import Any

from manyeyes.controller.telemetry.access_log_parser import Attempt, Outcome, Request

SERVER, CLIENT = 2, 3
ERROR = 2
TRACED = b'"traced":"1"'
"""In lines of requests that are to have spans."""


def spans(line: dict[str, Any], request: Request, engine_at: Callable[[str], str]) -> list[dict[str, Any]]:
    """The request's span, then one for each engine asked. Raises KeyError or ValueError for a line that nginx did not write."""
    ended_s = datetime.fromisoformat(line["at"]).timestamp()
    began_s = ended_s - (request.total_s or 0.0)
    trace, own, parent = str(line["trace"]), str(line["span"]), str(line["parent"])
    if len(bytes.fromhex(trace)) != 16 or len(bytes.fromhex(own)) != 8:
        raise ValueError(f"no ids of a trace: {trace!r}, {own!r}")
    told = {
        "http.request.method": line["method"],
        "url.path": line["path"],
        "http.response.status_code": request.status,
        "manyeyes.request": line["request"],
        "manyeyes.model": line["model"],
        "manyeyes.pool": request.pool,
        "manyeyes.engine": request.engine,
        "manyeyes.fallback": request.fallback,
        "manyeyes.cache": request.cache,
    }
    whole = _span(
        trace, own, f"{line['method']} {line['path']}", SERVER, (began_s, ended_s), told, request.status >= 500
    )
    if parent:
        whole["parentSpanId"] = parent
    found = [whole]
    at_s = began_s
    for number, attempt in enumerate(request.attempts):
        until_s = min(at_s + (attempt.response_s or 0.0), ended_s)
        told = {
            "manyeyes.engine": engine_at(attempt.address),
            "server.address": attempt.address,
            "manyeyes.outcome": attempt.outcome.value,
            "manyeyes.first_byte_s": attempt.header_s,
        }
        made = _span(trace, _child(own, number), "ask an engine", CLIENT, (at_s, until_s), told, _failed(attempt))
        found.append(made | {"parentSpanId": own})
        at_s = until_s
    return found


def document(found: list[dict[str, Any]]) -> dict[str, Any]:
    """What an OTLP receiver takes."""
    resource = {"attributes": _attributes({"service.name": "gateway"})}
    return {"resourceSpans": [{"resource": resource, "scopeSpans": [{"scope": {"name": "manyeyes"}, "spans": found}]}]}


def _span(
    trace: str, own: str, name: str, kind: int, time_s: tuple[float, float], told: dict[str, Any], failed: bool
) -> dict[str, Any]:
    begin, end = (str(round(one * 1e9)) for one in time_s)
    made = {
        "traceId": trace,
        "spanId": own,
        "name": name,
        "kind": kind,
        "startTimeUnixNano": begin,
        "endTimeUnixNano": end,
    }
    return made | {"attributes": _attributes(told)} | ({"status": {"code": ERROR}} if failed else {})


def _attributes(told: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"key": key, "value": _value(value)} for key, value in told.items() if value not in ("", None)]


def _value(value: Any) -> dict[str, Any]:
    if isinstance(value, int):
        return {"intValue": str(value)}
    return {"doubleValue": value} if isinstance(value, float) else {"stringValue": str(value)}


def _child(own: str, number: int) -> str:
    """An attempt has no number of its own in the log: one that follows from the request's."""
    return hashlib.sha256(f"{own} {number}".encode()).hexdigest()[:16]


def _failed(attempt: Attempt) -> bool:
    return attempt.outcome not in (Outcome.OK, Outcome.LEFT)
