"""Reconstructs what happened to one request from the log lines of all parts. Pure."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from manyeyes.observability.log_format import LEVELS, format_time
from manyeyes.observability.log_lines import LogLine, format_sentence

AROUND_S = 1.0
"""Lines are written up to a second late. The clocks of the parts on one host agree."""


@dataclass(frozen=True)
class RequestStory:
    """One event in the story of a request."""

    at_s: float
    who: str
    what: str


@dataclass(frozen=True)
class RequestTry:
    """One attempt on an engine, as nginx logged it."""

    address: str
    begun_s: float
    took_s: float
    status: str
    connected: bool
    header_s: float | None


def search_window(lines: Iterable[LogLine], request: str) -> tuple[float, float] | None:
    """(from, to) in Unix time of all lines that name the request; None if no line names it."""
    found = [line for line in lines if line.request == request]
    if not found:
        return None
    begins = [line.at_s - _seconds(str(line.fields.get("total_s", 0)), 0.0) for line in found]
    return min(begins), max(line.at_s for line in found)


def trace_request(lines: list[LogLine], request: str) -> list[RequestStory]:
    """The events of the request in the order of time; empty if no line names it."""
    between = search_window(lines, request)
    if between is None:
        return []
    engine_at = names(lines)
    told: list[RequestStory] = []
    tried: set[str] = set()
    connections: set[object] = set()
    for line in lines:
        if line.request != request:
            continue
        if line.part == "gateway" and line.event == "request":
            told += _at_the_gateway(line, engine_at)
            tried |= {engine_at.get(one.address, one.address) for one in request_tries(line)} | {line.engine}
            connections.add(line.fields.get("connection"))
        else:
            tried.add(line.engine)
            told.append(RequestStory(line.at_s, line.engine or line.part, _of_the_request(line)))
    told += _what_the_controller_knew(lines, tried - {""}, between)
    begin, end = between[0] - AROUND_S, between[1] + AROUND_S
    for line in lines:
        if line.request or not begin <= line.at_s <= end:
            continue
        if line.event == "nginx" and line.fields.get("connection") in connections - {None}:
            told.append(RequestStory(line.at_s, "gateway", format_sentence(line)))
        elif line.part == "engine" and line.engine in tried and LEVELS.index(line.level) >= LEVELS.index("warning"):
            told.append(RequestStory(line.at_s, line.engine, f"at the same time: {format_sentence(line)}"))
    return sorted(told, key=lambda one: one.at_s)


def names(lines: Iterable[LogLine]) -> dict[str, str]:
    """{address: engine}, from the controller's lines and from requests, which name the engine that answered last."""
    found: dict[str, str] = {}
    for line in lines:
        if line.part == "controller" and line.engine and line.fields.get("address"):
            found[str(line.fields["address"])] = line.engine
        elif line.event == "request" and line.engine and line.fields.get("attempts"):
            found[re.split(r", | : ", str(line.fields["attempts"]))[-1]] = line.engine
    return found


def request_tries(line: LogLine) -> list[RequestTry]:
    """The attempts, oldest first, from nginx's lists: `, ` separates attempts within a pool, ` : ` separates pools."""
    lists = [
        re.split(r", | : ", str(line.fields.get(name) or ""))
        for name in ("attempts", "attempt_status", "connect_s", "header_s", "response_s")
    ]
    began_s = line.at_s - _seconds(str(line.fields.get("total_s")), 0.0)
    found: list[RequestTry] = []
    for number, address in enumerate(lists[0]):
        status, connect, header, response = (one[number] if number < len(one) else "-" for one in lists[1:])
        took_s = _seconds(response, 0.0)
        if re.search(r":\d+$", address):
            header_s = None if header in ("-", "") else _seconds(header, 0.0)
            found.append(RequestTry(address, began_s, took_s, status, connect not in ("-", ""), header_s))
        began_s += took_s
    return found


def _at_the_gateway(line: LogLine, engine_at: dict[str, str]) -> list[RequestStory]:
    fields = line.fields
    began_s = line.at_s - _seconds(str(fields.get("total_s")), 0.0)
    key = f" with key {fields['key']}" if fields.get("key") else ""
    model = f", model {fields['model']}" if fields.get("model") else ""
    what = f"{fields.get('method')} {fields.get('path')} from {fields.get('client')}{key}{model}, {fields.get('bytes_in')} bytes"
    told = [RequestStory(began_s, "gateway", what)]
    for one in request_tries(line):
        who = engine_at.get(one.address)
        told.append(
            RequestStory(
                one.begun_s, "gateway", f"sent to {f'{who} ({one.address})' if who else one.address}: {_became(one)}"
            )
        )
    by = f" by {line.engine}" if line.engine else ""
    instead = f", as fallback for {fields['fallback']}" if fields.get("fallback") else ""
    cache = f", cache {fields['cache']}" if fields.get("cache") else ""
    trace = f", trace {fields['trace']}" if fields.get("trace") else ""
    pool = f" of {fields['pool']}" if fields.get("pool") else ""
    ended = f"answered {fields.get('status')}{by}{pool}{instead} after {fields.get('total_s')} s, {fields.get('bytes_out')} bytes"
    return [*told, RequestStory(line.at_s, "gateway", f"{ended}{cache}{trace}")]


def _became(one: RequestTry) -> str:
    if not one.connected:
        return f"no connection after {one.took_s:.3f} s"
    if one.header_s is None:
        return f"connection lost before the answer began, after {one.took_s:.3f} s ({one.status})"
    return f"{one.status}, first byte after {one.header_s:.3f} s, done after {one.took_s:.3f} s"


def _of_the_request(line: LogLine) -> str:
    fields = {key: value for key, value in line.fields.items() if key not in ("request", "engine", "pool", "exception")}
    rest = ", ".join(f"{key} {value}" for key, value in fields.items() if value not in ("", None))
    return f"{line.event.replace('_', ' ')}{f': {rest}' if rest else ''}"


def _what_the_controller_knew(
    lines: list[LogLine], engines: set[str], between: tuple[float, float]
) -> list[RequestStory]:
    """For each engine: its last state change before the request, and its state changes during the request."""
    told: list[RequestStory] = []
    for engine in engines:
        changes = [
            one for one in lines if one.part == "controller" and one.engine == engine and one.fields.get("state")
        ]
        before = [one for one in changes if one.at_s <= between[0]]
        for one in before[-1:]:
            told.append(
                RequestStory(
                    between[0], "controller", f"state since {format_time(one.at_s)[11:19]}: {format_sentence(one)}"
                )
            )
        during = [one for one in changes if between[0] < one.at_s <= between[1] + AROUND_S]
        told += [RequestStory(one.at_s, "controller", format_sentence(one)) for one in during]
    return told


def _seconds(text: str, otherwise: float) -> float:
    try:
        return float(text)
    except ValueError:
        return otherwise
