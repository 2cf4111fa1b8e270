"""One datagram of the gateway's request log, read. Pure, and total: whatever the bytes are, it returns.

nginx's log_format is in manyeyes/render/nginx/pools.py, with tracing the one in nginx/nginx.conf. Its upstream variables are lists: `, ` between
attempts, ` : ` where the request was handed on inside nginx, to another pool or to the same one anew, and `-` for a time or status that
there is none of.
The shapes in tests/unit/test_controller_requests.py are what nginx 1.30.6 wrote for engines that did each of these things.
"""

import json
from dataclasses import dataclass

import orjson

from manyeyes.controller.health.states import AttemptOutcome

MOST_ATTEMPTS = 32
"""nginx makes at most a handful; a longer list is not from nginx, and what follows is left out."""
MOST_BYTES = 1e12
MOST_S = 1e7
"""A terabyte and four months: no request is larger or longer, so a number above is not from nginx."""
FROM_CACHE = frozenset({"HIT", "STALE", "UPDATING"})
"""$upstream_cache_status of answers that no engine was asked for."""


@dataclass(frozen=True, slots=True)
class EngineAttempt:
    """One engine asked once."""

    address: str
    """host:port."""
    outcome: AttemptOutcome
    header_s: float | None
    """From the start of the attempt to the end of the answer's header, which nginx takes for the first byte."""
    response_s: float | None
    """From its start to its end."""
    handed_on: bool
    """The request was handed on inside nginx afterwards, so another pool may have answered."""


@dataclass(frozen=True, slots=True)
class LoggedRequest:
    status: int
    """What the client got; 0 where nginx wrote none, 499 where the client left first."""
    total_s: float | None
    key: str
    """The name of the client's API key, or empty."""
    asked_pool: str
    pool: str
    """The pool that answered, or empty."""
    fallback: str
    """The pool asked for when another one answered, else empty."""
    engine: str
    """The engine that answered, by name, or its address; or empty."""
    attempts: tuple[EngineAttempt, ...]
    waited_s: float
    """Time that went by before the last attempt, in attempts and in finding that a pool had no engine."""
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
        """Answered by the gateway's cache; no engine was asked."""
        return not self.attempts and self.cache in FROM_CACHE

    @property
    def first_byte_s(self) -> float | None:
        """What the client waited until the first byte, once its request was read. None where no engine and no cache answered."""
        if self.cached:
            return self.total_s
        if not self.attempts or self.attempts[-1].header_s is None:
            return None
        return self.waited_s + self.attempts[-1].header_s

    @property
    def since_first_byte_s(self) -> float:
        """How long before its end the engine was last seen to work: 0 for an answer that came at once, a stream's length for one."""
        if not self.attempts:
            return 0.0
        last = self.attempts[-1]
        return max(0.0, (last.response_s or 0.0) - (last.header_s or 0.0))


def parse_datagram(datagram: bytes) -> LoggedRequest | None:
    """The request that a datagram tells of; None for anything else. A missing field is empty, 0 or None; the status must be there."""
    found = parse_fields(datagram)
    return None if found is None else parse_request(found)


def parse_fields(datagram: bytes) -> dict[str, object] | None:
    """The line's fields, whatever they are; None where there is no object of JSON."""
    start = datagram.find(b"{")
    if start < 0:
        return None
    try:
        found = orjson.loads(memoryview(datagram)[start:])
    except ValueError:
        return _object(datagram[start:].decode("utf-8", "replace"))
    return found if isinstance(found, dict) else None


def parse_request(fields: dict[str, object]) -> LoggedRequest | None:
    """The same as `parse_datagram`, of fields."""
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
    return LoggedRequest(
        status=int(status),
        total_s=_number(fields.get("total_s"), MOST_S),
        key=_text(fields.get("key")),
        asked_pool=_text(fields.get("asked_pool")),
        pool=_text(fields.get("pool")),
        fallback=_text(fields.get("fallback")),
        engine=_text(fields.get("engine")),
        attempts=attempts,
        waited_s=waited_s,
        cache=_text(fields.get("cache")),
        bytes_in=int(_number(fields.get("bytes_in"), MOST_BYTES) or 0),
        bytes_out=int(_number(fields.get("bytes_out"), MOST_BYTES) or 0),
        streamed=_text(fields.get("stream")) == "1",
    )


def _object(text: str) -> dict[str, object] | None:
    # nginx writes a status that it does not have as 000, which is no number in JSON. What orjson refuses is rare (bytes that
    # are no UTF-8 are among it) and read by the slower, more lenient parser.
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


def _number(value: object, most: float) -> float | None:
    """From 0 to `most`, or None."""
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= most:
        return value
    return None


def _attempts(
    addresses: str, statuses: str, connects: str, headers: str, responses: str
) -> tuple[tuple[EngineAttempt, ...], float]:
    """The attempts that reached for an engine, and the time before the last of them."""
    if not addresses:
        return (), 0.0
    made: list[EngineAttempt] = []
    before_s = waited_s = 0.0
    lists = [text.replace(" : ", ", ").split(", ") for text in (statuses, connects, headers, responses)]
    passes = addresses.split(" : ")
    index = 0
    for number, one_pass in enumerate(passes):
        for address in one_pass.split(", "):
            status, connect, header, response = (values[index] if index < len(values) else "-" for values in lists)
            index += 1
            response_s = _seconds(response)
            if _is_address(address):
                header_s = _seconds(header)
                outcome = _outcome(status, _seconds(connect) is not None, header_s is not None)
                made.append(EngineAttempt(address, outcome, header_s, response_s, handed_on=number < len(passes) - 1))
                waited_s = before_s
            before_s += response_s or 0.0
            if index >= MOST_ATTEMPTS:
                return tuple(made), waited_s
    return tuple(made), waited_s


def _is_address(text: str) -> bool:
    """nginx writes the pool's name where there was no engine to ask."""
    _, colon, port = text.rpartition(":")
    return bool(colon) and port.isdecimal()


def _seconds(text: str) -> float | None:
    try:
        return _number(float(text), MOST_S)
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
