"""Reconstructs what happened to one request from the log lines of all parts. Pure."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from manyeyes.observability.log_format import LEVELS, format_time
from manyeyes.observability.log_lines import LogLine, format_sentence

TOLERANCE_S = 1.0
"""Lines are written up to a second late. The clocks of the parts on one host agree."""


@dataclass(frozen=True)
class RequestEvent:
    """One event in the story of a request."""

    at_s: float
    source: str
    text: str


@dataclass(frozen=True)
class RequestAttempt:
    """One attempt on an engine, as nginx logged it."""

    address: str
    started_s: float
    duration_s: float
    status: str
    connected: bool
    header_s: float | None


def search_window(lines: Iterable[LogLine], request: str) -> tuple[float, float] | None:
    """(from, to) in Unix time of all lines that name the request; None if no line names it."""
    request_lines = [line for line in lines if line.request == request]
    if not request_lines:
        return None
    starts = [line.at_s - _seconds(str(line.fields.get("total_s", 0)), 0.0) for line in request_lines]
    return min(starts), max(line.at_s for line in request_lines)


def trace_request(lines: list[LogLine], request: str) -> list[RequestEvent]:
    """The events of the request in the order of time; empty if no line names it."""
    window = search_window(lines, request)
    if window is None:
        return []
    engines = engines_by_address(lines)
    events: list[RequestEvent] = []
    engine_names: set[str] = set()
    connections: set[object] = set()
    for line in lines:
        if line.request != request:
            continue
        if line.part == "gateway" and line.event == "request":
            events += _gateway_events(line, engines)
            engine_names |= {engines.get(attempt.address, attempt.address) for attempt in parse_attempts(line)} | {
                line.engine
            }
            connections.add(line.fields.get("connection"))
        else:
            engine_names.add(line.engine)
            events.append(RequestEvent(line.at_s, line.engine or line.part, _describe_line(line)))
    events += _controller_events(lines, engine_names - {""}, window)
    start, end = window[0] - TOLERANCE_S, window[1] + TOLERANCE_S
    for line in lines:
        if line.request or not start <= line.at_s <= end:
            continue
        if line.event == "nginx" and line.fields.get("connection") in connections - {None}:
            events.append(RequestEvent(line.at_s, "gateway", format_sentence(line)))
        elif (
            line.part == "engine"
            and line.engine in engine_names
            and LEVELS.index(line.level) >= LEVELS.index("warning")
        ):
            events.append(RequestEvent(line.at_s, line.engine, f"at the same time: {format_sentence(line)}"))
    return sorted(events, key=lambda event: event.at_s)


def engines_by_address(lines: Iterable[LogLine]) -> dict[str, str]:
    """{address: engine}, from the controller's lines and from requests, which name the engine that answered last."""
    engines: dict[str, str] = {}
    for line in lines:
        if line.part == "controller" and line.engine and line.fields.get("address"):
            engines[str(line.fields["address"])] = line.engine
        elif line.event == "request" and line.engine and line.fields.get("attempts"):
            engines[re.split(r", | : ", str(line.fields["attempts"]))[-1]] = line.engine
    return engines


def parse_attempts(line: LogLine) -> list[RequestAttempt]:
    """The attempts, oldest first, from nginx's lists: `, ` separates attempts within a pool, ` : ` separates pools."""
    lists = [
        re.split(r", | : ", str(line.fields.get(name) or ""))
        for name in ("attempts", "attempt_status", "connect_s", "header_s", "response_s")
    ]
    started_s = line.at_s - _seconds(str(line.fields.get("total_s")), 0.0)
    attempts: list[RequestAttempt] = []
    for number, address in enumerate(lists[0]):
        status, connect, header, response = (values[number] if number < len(values) else "-" for values in lists[1:])
        duration_s = _seconds(response, 0.0)
        if re.search(r":\d+$", address):
            header_s = None if header in ("-", "") else _seconds(header, 0.0)
            attempts.append(RequestAttempt(address, started_s, duration_s, status, connect not in ("-", ""), header_s))
        started_s += duration_s
    return attempts


def _gateway_events(line: LogLine, engines: dict[str, str]) -> list[RequestEvent]:
    fields = line.fields
    started_s = line.at_s - _seconds(str(fields.get("total_s")), 0.0)
    key = f" with key {fields['key']}" if fields.get("key") else ""
    model = f", model {fields['model']}" if fields.get("model") else ""
    text = f"{fields.get('method')} {fields.get('path')} from {fields.get('client')}{key}{model}, {fields.get('bytes_in')} bytes"
    events = [RequestEvent(started_s, "gateway", text)]
    for attempt in parse_attempts(line):
        engine = engines.get(attempt.address)
        events.append(
            RequestEvent(
                attempt.started_s,
                "gateway",
                f"sent to {f'{engine} ({attempt.address})' if engine else attempt.address}: {_describe_attempt(attempt)}",
            )
        )
    engine_text = f" by {line.engine}" if line.engine else ""
    fallback = f", as fallback for {fields['fallback']}" if fields.get("fallback") else ""
    cache = f", cache {fields['cache']}" if fields.get("cache") else ""
    trace = f", trace {fields['trace']}" if fields.get("trace") else ""
    pool = f" of {fields['pool']}" if fields.get("pool") else ""
    answer = f"answered {fields.get('status')}{engine_text}{pool}{fallback} after {fields.get('total_s')} s, {fields.get('bytes_out')} bytes"
    return [*events, RequestEvent(line.at_s, "gateway", f"{answer}{cache}{trace}")]


def _describe_attempt(attempt: RequestAttempt) -> str:
    if not attempt.connected:
        return f"no connection after {attempt.duration_s:.3f} s"
    if attempt.header_s is None:
        return f"connection lost before the answer began, after {attempt.duration_s:.3f} s ({attempt.status})"
    return f"{attempt.status}, first byte after {attempt.header_s:.3f} s, done after {attempt.duration_s:.3f} s"


def _describe_line(line: LogLine) -> str:
    fields = {key: value for key, value in line.fields.items() if key not in ("request", "engine", "pool", "exception")}
    rest = ", ".join(f"{key} {value}" for key, value in fields.items() if value not in ("", None))
    return f"{line.event.replace('_', ' ')}{f': {rest}' if rest else ''}"


def _controller_events(lines: list[LogLine], engines: set[str], window: tuple[float, float]) -> list[RequestEvent]:
    """For each engine: its last state change before the request, and its state changes during the request."""
    events: list[RequestEvent] = []
    for engine in engines:
        changes = [
            line for line in lines if line.part == "controller" and line.engine == engine and line.fields.get("state")
        ]
        before = [line for line in changes if line.at_s <= window[0]]
        for line in before[-1:]:
            events.append(
                RequestEvent(
                    window[0], "controller", f"state since {format_time(line.at_s)[11:19]}: {format_sentence(line)}"
                )
            )
        during = [line for line in changes if window[0] < line.at_s <= window[1] + TOLERANCE_S]
        events += [RequestEvent(line.at_s, "controller", format_sentence(line)) for line in during]
    return events


def _seconds(text: str, default: float) -> float:
    try:
        return float(text)
    except ValueError:
        return default
