"""Parses one datagram of the gateway's request log. Pure; it accepts any bytes without raising.

nginx's log_format is in manyeyes/render/nginx/pools.py, and with tracing in nginx/nginx.conf. Its upstream variables
are lists: `, ` separates attempts, ` : ` marks an internal redirect in nginx (to another pool, or to the same pool
again), and `-` is a missing time or status. The examples in tests/unit/test_controller_requests.py were written by
nginx 1.30.6 for engines with each of these faults.
"""

import json
from dataclasses import dataclass, replace

import orjson

from manyeyes.controller.health.states import AttemptOutcome

MAX_ATTEMPTS = 32
"""nginx makes only a few attempts. A longer list is not from nginx, and the rest of it is ignored."""
MAX_BYTES = 1e12
MAX_S = 1e7
"""One terabyte and four months. No request is larger or longer, so a larger number is not from nginx."""
FROM_CACHE = frozenset({"HIT", "STALE", "UPDATING"})
"""Values of $upstream_cache_status for answers that come from the cache without an engine."""

CANNOT_PROCESS = "engine_cannot_process"
"""The gateway's error code for a request that engines answered with 500 or 501 although they are healthy."""
ENDED_ENGINES = "request_ended_engines"
"""The gateway's error code for a request that it refuses because it ended engines."""


@dataclass(frozen=True, slots=True)
class EngineAttempt:
    """One attempt to send a request to one engine."""

    address: str
    """host:port."""
    outcome: AttemptOutcome
    header_s: float | None
    """Time from the start of the attempt to the end of the response headers, which nginx uses as the first byte."""
    response_s: float | None
    """Duration of the attempt."""
    redirected: bool
    """nginx redirected the request internally after this attempt, so another pool may have answered."""


@dataclass(frozen=True, slots=True)
class LoggedRequest:
    status: int
    """The status sent to the client; 0 when nginx wrote none, 499 when the client disconnected first."""
    code: str
    """The code of the gateway's own error, or empty."""
    total_s: float | None
    key: str
    """The name of the client's API key, or empty."""
    asked_pool: str
    pool: str
    """The pool that answered, or empty."""
    fallback: str
    """The requested pool when a fallback pool answered, else empty."""
    engine: str
    """The name or address of the engine that answered, or empty."""
    attempts: tuple[EngineAttempt, ...]
    waited_s: float
    """Time before the last attempt: earlier attempts, and detecting that a pool had no engine."""
    cache: str
    """nginx's $upstream_cache_status, or empty."""
    bytes_in: int
    bytes_out: int
    streamed: bool

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 400

    @property
    def cached(self) -> bool:
        """Whether the answer came from the gateway's cache without an engine."""
        return not self.attempts and self.cache in FROM_CACHE

    @property
    def first_byte_s(self) -> float | None:
        """Time to first byte, after the request was read. None when neither an engine nor the cache answered."""
        if self.cached:
            return self.total_s
        if not self.attempts or self.attempts[-1].header_s is None:
            return None
        return self.waited_s + self.attempts[-1].header_s

    @property
    def since_first_byte_s(self) -> float:
        """Time from the first byte to the end of the answer: about 0 for a whole answer, the duration of a stream."""
        if not self.attempts:
            return 0.0
        last = self.attempts[-1]
        return max(0.0, (last.response_s or 0.0) - (last.header_s or 0.0))


def parse_datagram(datagram: bytes) -> LoggedRequest | None:
    """Parses a datagram; None when it contains no request.

    A missing field is empty, 0 or None; the status is required.
    """
    fields = parse_fields(datagram)
    return None if fields is None else parse_request(fields)


def parse_fields(datagram: bytes) -> dict[str, object] | None:
    """Parses the fields of a line, without validation; None when there is no JSON object."""
    start = datagram.find(b"{")
    if start < 0:
        return None
    try:
        fields = orjson.loads(memoryview(datagram)[start:])
    except ValueError:
        return _object(datagram[start:].decode("utf-8", "replace"))
    return fields if isinstance(fields, dict) else None


def parse_request(fields: dict[str, object]) -> LoggedRequest | None:
    """Like `parse_datagram`, for parsed fields."""
    if fields.get("event", "request") != "request":
        return None
    status = _number(fields.get("status"), 999)
    if status is None:
        return None
    attempts, waited_s = _attempts(
        _text(fields.get("attempts")),
        _text(fields.get("attempt_status")),
        _text(fields.get("connect_s")),
        _text(fields.get("header_s")),
        _text(fields.get("response_s")),
    )
    code = _text(fields.get("code"))
    if code == CANNOT_PROCESS:
        attempts = tuple(_unprocessable(attempt) for attempt in attempts)
    return LoggedRequest(
        status=int(status),
        code=code,
        total_s=_number(fields.get("total_s"), MAX_S),
        key=_text(fields.get("key")),
        asked_pool=_text(fields.get("asked_pool")),
        pool=_text(fields.get("pool")),
        fallback=_text(fields.get("fallback")),
        engine=_text(fields.get("engine")),
        attempts=attempts,
        waited_s=waited_s,
        cache=_text(fields.get("cache")),
        bytes_in=int(_number(fields.get("bytes_in"), MAX_BYTES) or 0),
        bytes_out=int(_number(fields.get("bytes_out"), MAX_BYTES) or 0),
        streamed=_text(fields.get("stream")) == "1",
    )


def _object(text: str) -> dict[str, object] | None:
    # nginx writes a missing status as 000, which is not valid JSON. Lines that orjson rejects, such as those with
    # invalid UTF-8, are rare; the slower and more lenient parser reads them.
    for parse, spelling in (
        (orjson.loads, text),
        (json.loads, text),
        (json.loads, text.replace('"status":00', '"status":', 1)),
    ):
        try:
            read = parse(spelling)
        except (ValueError, RecursionError):
            continue
        return read if isinstance(read, dict) else None
    return None


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _number(value: object, maximum: float) -> float | None:
    """The value if it is a number from 0 to `maximum`, else None."""
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= maximum:
        return value
    return None


def _attempts(
    addresses: str, statuses: str, connects: str, headers: str, responses: str
) -> tuple[tuple[EngineAttempt, ...], float]:
    """The attempts on engines, and the time before the last of them."""
    if not addresses:
        return (), 0.0
    made: list[EngineAttempt] = []
    before_s = waited_s = 0.0
    lists = [text.replace(" : ", ", ").split(", ") for text in (statuses, connects, headers, responses)]
    passes = addresses.split(" : ")
    index = 0
    for number, pool_addresses in enumerate(passes):
        for address in pool_addresses.split(", "):
            status, connect, header, response = (values[index] if index < len(values) else "-" for values in lists)
            index += 1
            response_s = _seconds(response)
            if _is_address(address):
                header_s = _seconds(header)
                outcome = _outcome(status, _seconds(connect) is not None, header_s is not None)
                made.append(EngineAttempt(address, outcome, header_s, response_s, redirected=number < len(passes) - 1))
                waited_s = before_s
            before_s += response_s or 0.0
            if index >= MAX_ATTEMPTS:
                return tuple(made), waited_s
    return tuple(made), waited_s


def _unprocessable(attempt: EngineAttempt) -> EngineAttempt:
    is_error = attempt.outcome is AttemptOutcome.ERROR
    return replace(attempt, outcome=AttemptOutcome.UNPROCESSABLE) if is_error else attempt


def _is_address(text: str) -> bool:
    """Whether this is an address. nginx writes the pool's name instead when the pool had no engine."""
    _, colon, port = text.rpartition(":")
    return bool(colon) and port.isdecimal()


def _seconds(text: str) -> float | None:
    try:
        return _number(float(text), MAX_S)
    except ValueError:
        return None


def _outcome(status: str, connected: bool, answered: bool) -> AttemptOutcome:
    if not status.isdecimal():
        return AttemptOutcome.LEFT
    if not answered:
        if not connected:
            return AttemptOutcome.REFUSED
        return AttemptOutcome.TIMEOUT if status == "504" else AttemptOutcome.LOST
    if status in ("503", "429"):
        return AttemptOutcome.BUSY
    return AttemptOutcome.ERROR if status >= "500" else AttemptOutcome.OK
