"""Requests that one engine answered, which is nearly all of them, are counted together: a look at a few fields tells of which kind one is.

A request costs the controller less than half of what reading and counting it by itself does (docs/measured.md).
"""

from dataclasses import dataclass
from typing import NamedTuple

from prometheus_client import Counter, Histogram

from manyeyes.config.pools import Slo
from manyeyes.controller.telemetry import request_metrics
from manyeyes.controller.telemetry.access_log_parser import MOST_BYTES, MOST_S, AttemptOutcome, LoggedRequest
from manyeyes.controller.telemetry.metrics import (
    ATTEMPTS,
    BYTES_IN,
    BYTES_OUT,
    FIRST_BYTE_SECONDS,
    KEY_REQUESTS,
    REQUESTS,
    SECONDS,
    WITHIN_SLO,
    counter,
    histogram,
)
from manyeyes.controller.telemetry.request_metrics import ClusterLabels

GROUPING_FIELDS = ("attempts", "pool", "asked_pool", "engine", "cache", "key", "stream")
"""Fields that decide what a request counts as, but for its times and sizes."""

GroupKey = tuple[object, ...]


class RequestFigures(NamedTuple):
    """In what requests of one kind differ."""

    total_s: float
    first_byte_s: float
    response_s: float
    bytes_in: int
    bytes_out: int


@dataclass(slots=True)
class RequestGroup:
    """Requests that differ in nothing but times and sizes, since they were last counted for Prometheus. Times in seconds."""

    engine: str
    pool: str
    """The engine's, by the configuration."""
    counted_once: tuple[Counter, ...]
    """Each request is 1 in these."""
    seconds: Histogram
    first_byte_seconds: Histogram
    within_slo: Counter
    bytes_in: Counter
    bytes_out: Counter
    slowest: tuple[float, float]
    """The longest time, and time to the first byte, that keeps the pool's objective."""
    number: int = 0
    kept_slo: int = 0
    bytes_in_sum: int = 0
    bytes_out_sum: int = 0
    began_at_s: float = 0.0
    """When the last answer began, on the clock that `add` was given."""

    def add(self, now_s: float, figures: RequestFigures) -> None:
        total_s, first_byte_s, response_s, bytes_in, bytes_out = figures
        self.number += 1
        self.seconds.observe(total_s)
        self.first_byte_seconds.observe(first_byte_s)
        self.bytes_in_sum += bytes_in
        self.bytes_out_sum += bytes_out
        if total_s <= self.slowest[0] and first_byte_s <= self.slowest[1]:
            self.kept_slo += 1
        self.began_at_s = max(self.began_at_s, now_s - max(0.0, response_s - first_byte_s))

    def flush(self) -> None:
        for one in self.counted_once:
            one.inc(self.number)
        self.within_slo.inc(self.kept_slo)
        self.bytes_in.inc(self.bytes_in_sum)
        self.bytes_out.inc(self.bytes_out_sum)
        self.number = self.kept_slo = self.bytes_in_sum = self.bytes_out_sum = 0


def group_key(fields: dict[str, object]) -> GroupKey | None:
    """What kind of request the fields tell of; None for any that has to be looked at by itself."""
    get = fields.get
    if get("status") != 200 or get("attempt_status") != "200" or get("fallback") or get("traced") == "1":
        return None
    if get("event", "request") != "request":
        return None
    return tuple(map(get, GROUPING_FIELDS))


def parse_figures(fields: dict[str, object]) -> RequestFigures | None:
    """None where any of them is not what nginx writes."""
    get = fields.get
    try:
        found = RequestFigures(
            get("total_s"),  # type: ignore[arg-type]
            float(get("header_s")),  # type: ignore[arg-type]
            float(get("response_s")),  # type: ignore[arg-type]
            get("bytes_in"),  # type: ignore[arg-type]
            get("bytes_out"),  # type: ignore[arg-type]
        )
        total_s, first_byte_s, response_s, bytes_in, bytes_out = found
        times = 0 <= total_s <= MOST_S and 0 <= first_byte_s <= MOST_S and 0 <= response_s <= MOST_S
        return found if times and 0 <= bytes_in <= MOST_BYTES and 0 <= bytes_out <= MOST_BYTES else None
    except (TypeError, ValueError, OverflowError):
        return None


def open_group(request: LoggedRequest, known: ClusterLabels, client: str, slo: Slo | None) -> RequestGroup | None:
    """Where requests like this one are counted; None where it is not ordinary. `client` is its key's label."""
    engine = known.engine(request)
    ordinary = len(request.attempts) == 1 and request.attempts[0].outcome is AttemptOutcome.OK and not request.fallback
    if not (ordinary and request.ok and engine in known.pool_of and known.engine_at.get(request.attempts[0].address)):
        return None
    pool, status = known.asked(request), request_metrics.status_label(request.status)
    once = [
        counter(REQUESTS, pool, engine, status, "", request_metrics.cache_label(request.cache)),
        counter(ATTEMPTS, *known.attempted(request, request.attempts[0]), AttemptOutcome.OK.value),
    ]
    if client:
        once.append(counter(KEY_REQUESTS, client, request_metrics.status_class(request.status)))
    never, always = -1.0, MOST_S
    return RequestGroup(
        engine=engine,
        pool=known.pool_of[engine],
        counted_once=tuple(once),
        seconds=histogram(SECONDS, pool, engine),
        first_byte_seconds=histogram(FIRST_BYTE_SECONDS, pool, engine),
        within_slo=counter(WITHIN_SLO, pool, engine),
        bytes_in=counter(BYTES_IN, pool),
        bytes_out=counter(BYTES_OUT, pool),
        slowest=(slo.total_s if slo else never, slo.first_s if slo and request.streamed else always),
    )
