"""Counts the gateway's requests for Prometheus, and stores the latencies of the last minutes. metrics.py has the names.

Only configured names become label values, so that clients cannot create series. The number of series is pools x engines
x a few statuses, plus 2 x 24 buckets per engine. Series of configured engines start at 0, so that a rate is 0 and not
missing.

Requests with one attempt, which are nearly all requests, are counted in groups with the same labels. This costs less
than half of the CPU that parsing and counting each request needs (docs/benchmarks/measured.md).
"""

from collections import Counter as Tally
from collections import deque
from dataclasses import dataclass
from http import HTTPStatus
from math import ceil
from typing import NamedTuple

from prometheus_client import Counter, Histogram

from manyeyes.config.placement import PlacedCluster
from manyeyes.config.pools import Slo
from manyeyes.controller.health.states import AttemptOutcome
from manyeyes.controller.metrics import (
    AT_FAULT,
    ATTEMPTS,
    BYTES_IN,
    BYTES_OUT,
    FALLBACKS,
    FIRST_BYTE_SECONDS,
    KEY_REQUESTS,
    REFUSED,
    REQUESTS,
    RETRIES,
    SECONDS,
    SLO_FIRST_S,
    SLO_SUCCESS,
    SLO_TOTAL_S,
    SLO_WITHIN,
    WITHIN_SLO,
    counter,
    histogram,
)
from manyeyes.controller.telemetry.access_log_parser import (
    CANNOT_PROCESS,
    ENDED_ENGINES,
    MAX_BYTES,
    MAX_S,
    EngineAttempt,
    LoggedRequest,
)

OTHER = "other"
NGINX_OWN = (444, 494, 495, 496, 497, 499)
"""Codes that only nginx uses; 499 means that the client disconnected first."""
STATUSES = frozenset({*(int(status) for status in HTTPStatus), *NGINX_OWN})
CACHE_STATUSES = frozenset({"MISS", "BYPASS", "EXPIRED", "STALE", "UPDATING", "REVALIDATED", "HIT"})
MAX_KEYS = 500


@dataclass(frozen=True)
class ClusterLabels:
    pools: frozenset[str]
    pool_of: dict[str, str]
    """{engine name: its pool}."""
    engine_at: dict[str, str]
    """{host:port: engine name}."""

    def pool(self, name: str) -> str:
        """The label of a pool: its name if it is known, else `other`; empty for an empty name."""
        return name if name in self.pools or not name else OTHER

    def responsible_pool(self, request: LoggedRequest) -> str:
        """The label of the pool that answered, or of the requested pool when none answered."""
        return self.pool(request.pool or request.asked_pool)

    def engine(self, request: LoggedRequest) -> str:
        """The label of the engine of the last attempt; empty when there was no attempt."""
        if not request.attempts:
            return ""
        name = self.engine_at.get(request.attempts[-1].address, request.engine)
        return name if name in self.pool_of else OTHER

    def attempted(self, request: LoggedRequest, attempt: EngineAttempt) -> tuple[str, str]:
        """The labels (pool, engine) of one attempt. An unknown address counts for the request's pool."""
        engine = self.engine_at.get(attempt.address, OTHER)
        if engine in self.pool_of:
            return self.pool_of[engine], engine
        fell_back = attempt.redirected and request.fallback
        return self.pool(request.fallback) if fell_back else self.responsible_pool(request), OTHER


def status_label(code: int) -> str:
    """The code as text; `other` for a code that is in no standard."""
    return str(code) if code in STATUSES else OTHER


def status_class(code: int) -> str:
    """2xx, 4xx, ..."""
    return f"{code // 100}xx" if 100 <= code < 600 else OTHER


def cache_label(word: str) -> str:
    return word if word in CACHE_STATUSES or not word else OTHER


def key_label(name: str, seen: set[str]) -> str:
    """The label of a client's key.

    The gateway logs only names from its key file; the limit here is an additional bound.
    """
    return name if name in seen or (len(seen) < MAX_KEYS and name.isascii() and name.isprintable()) else OTHER


CLIENT_CLOSED = 499
USUAL_FAILURES = (500, 502, 503, 504)
"""Their series start at 0, so that rates and alerts see the first failure."""
USUAL_REFUSALS = (400, 401, 403, 404, 405, 413, 415, 422, 429, 503)
FAULTS = (CANNOT_PROCESS, ENDED_ENGINES)


def initialize_series(cluster: PlacedCluster) -> None:
    """Creates the usual series of every configured pool and engine at 0."""
    for engine in cluster.engines:
        for status in (200, *USUAL_FAILURES):
            REQUESTS.labels(engine.pool, engine.name, str(status), "", "")
        WITHIN_SLO.labels(engine.pool, engine.name)
        SECONDS.labels(engine.pool, engine.name)
        FIRST_BYTE_SECONDS.labels(engine.pool, engine.name)
        for outcome in AttemptOutcome:
            ATTEMPTS.labels(engine.pool, engine.name, outcome.value)
    for pool in cluster.served_pools:
        REQUESTS.labels(pool.name, "", "200", "", "HIT")
        REQUESTS.labels(pool.name, "", "503", "", "")
        SLO_SUCCESS.labels(pool.name).set(pool.slo.availability)
        SLO_WITHIN.labels(pool.name).set(pool.slo.latency_objective)
        SLO_TOTAL_S.labels(pool.name).set(pool.slo.latency_s)
        SLO_FIRST_S.labels(pool.name).set(pool.slo.ttft_s)
        RETRIES.labels(pool.name)
        for code in FAULTS:
            AT_FAULT.labels(pool.name, code)
        BYTES_IN.labels(pool.name)
        BYTES_OUT.labels(pool.name)
        if pool.fallback:
            FALLBACKS.labels(pool.name, pool.fallback)
    for status in USUAL_REFUSALS:
        REFUSED.labels(str(status))


def count_request(request: LoggedRequest, known: ClusterLabels, key: str, slo: Slo | None = None) -> None:
    """Counts one request. `key` is the label of its API key, empty for none; `slo` is its pool's objective."""
    pool, engine = known.responsible_pool(request), known.engine(request)
    status = status_label(request.status)
    fallback = "1" if request.fallback else ""
    counter(REQUESTS, pool, engine, status, fallback, cache_label(request.cache)).inc()
    counter(BYTES_IN, pool).inc(request.bytes_in)
    counter(BYTES_OUT, pool).inc(request.bytes_out)
    if request.ok and (request.attempts or request.cached):
        if request.total_s is not None:
            histogram(SECONDS, pool, engine).observe(request.total_s)
        if request.first_byte_s is not None:
            histogram(FIRST_BYTE_SECONDS, pool, engine).observe(request.first_byte_s)
        if slo and is_within_slo(request, slo):
            counter(WITHIN_SLO, pool, engine).inc()
    if request.attempts:
        _count_attempts(request, known)
    elif request.status >= 400 and request.status != CLIENT_CLOSED:
        counter(REFUSED, status).inc()
    if request.code in FAULTS:
        counter(AT_FAULT, pool, request.code).inc()
    if request.fallback:
        counter(FALLBACKS, known.pool(request.fallback), pool).inc()
    if key:
        counter(KEY_REQUESTS, key, status_class(request.status)).inc()


def is_within_slo(request: LoggedRequest, slo: Slo) -> bool:
    """Whether a successful request met its pool's latency objective."""
    if request.total_s is None or request.total_s > slo.latency_s:
        return False
    return not request.streamed or request.first_byte_s is None or request.first_byte_s <= slo.ttft_s


def _count_attempts(request: LoggedRequest, known: ClusterLabels) -> None:
    attempts_by_pool: Tally[str] = Tally()
    for attempt in request.attempts:
        pool, engine = known.attempted(request, attempt)
        counter(ATTEMPTS, pool, engine, attempt.outcome.value).inc()
        attempts_by_pool[pool] += 1
    for pool, times in attempts_by_pool.items():
        if times > 1:
            counter(RETRIES, pool).inc()


WINDOW_S = 300.0
WINDOW_REQUESTS = 500
FEWEST_FOR_QUANTILE = 20
"""With fewer requests, a 95th percentile is not meaningful."""


class LatencyWindow:
    """Latencies of the successful requests of the last five minutes, at most 500 of them."""

    def __init__(self) -> None:
        self._requests: deque[tuple[float, float, float | None]] = deque(maxlen=WINDOW_REQUESTS)

    def add(self, now_s: float, total_s: float, first_byte_s: float | None) -> None:
        """Adds one request that ended at `now_s`, on a monotonic clock."""
        self._requests.append((now_s, total_s, first_byte_s))

    def total_ms(self, share: float, now_s: float) -> int | None:
        """Quantile `share` of the total times, in milliseconds; None while there are fewer than 20 requests."""
        return _to_ms(self.total_s_since(share, now_s - WINDOW_S))

    def first_byte_ms(self, share: float, now_s: float) -> int | None:
        times = [first_s for at_s, _, first_s in self._requests if at_s >= now_s - WINDOW_S and first_s is not None]
        return _to_ms(_quantile(times, share))

    def total_s_since(self, share: float, since_s: float) -> float | None:
        """Quantile `share` of the requests since `since_s`, in seconds; None while there are fewer than 20 requests."""
        return _quantile([total_s for at_s, total_s, _ in self._requests if at_s >= since_s], share)


def _quantile(times: list[float], share: float) -> float | None:
    """The nearest-rank quantile: always a measured value, without interpolation."""
    if len(times) < FEWEST_FOR_QUANTILE:
        return None
    return sorted(times)[max(0, ceil(share * len(times)) - 1)]


def _to_ms(seconds: float | None) -> int | None:
    return None if seconds is None else round(1000 * seconds)


GROUPING_FIELDS = ("attempts", "pool", "asked_pool", "engine", "cache", "key", "stream")
"""Fields that decide a request's labels."""

GroupKey = tuple[object, ...]


class RequestFigures(NamedTuple):
    """The values in which the requests of one group differ. Times in seconds."""

    total_s: float
    first_byte_s: float
    response_s: float
    bytes_in: int
    bytes_out: int


@dataclass(slots=True)
class RequestGroup:
    """Requests with the same labels that are not counted for Prometheus yet. They differ only in times and sizes.

    Times are in seconds.
    """

    engine: str
    pool: str
    """The engine's pool in the configuration."""
    counted_once: tuple[Counter, ...]
    """Counters that each request increments by 1."""
    seconds: Histogram
    first_byte_seconds: Histogram
    within_slo: Counter
    bytes_in: Counter
    bytes_out: Counter
    slowest: tuple[float, float]
    """The longest total time and time to first byte that meet the pool's objective."""
    number: int = 0
    within_slo_sum: int = 0
    bytes_in_sum: int = 0
    bytes_out_sum: int = 0
    began_at_s: float = 0.0
    """When the last answer began, on the clock of `add`."""

    def add(self, now_s: float, figures: RequestFigures) -> None:
        total_s, first_byte_s, response_s, bytes_in, bytes_out = figures
        self.number += 1
        self.seconds.observe(total_s)
        self.first_byte_seconds.observe(first_byte_s)
        self.bytes_in_sum += bytes_in
        self.bytes_out_sum += bytes_out
        if total_s <= self.slowest[0] and first_byte_s <= self.slowest[1]:
            self.within_slo_sum += 1
        self.began_at_s = max(self.began_at_s, now_s - max(0.0, response_s - first_byte_s))

    def flush(self) -> None:
        for metric in self.counted_once:
            metric.inc(self.number)
        self.within_slo.inc(self.within_slo_sum)
        self.bytes_in.inc(self.bytes_in_sum)
        self.bytes_out.inc(self.bytes_out_sum)
        self.number = self.within_slo_sum = self.bytes_in_sum = self.bytes_out_sum = 0


def group_key(fields: dict[str, object]) -> GroupKey | None:
    """The group of a request; None when the request must be parsed individually."""
    get = fields.get
    if get("status") != 200 or get("attempt_status") != "200" or get("fallback") or get("traced") == "1":
        return None
    if get("event", "request") != "request":
        return None
    return tuple(map(get, GROUPING_FIELDS))


def parse_figures(fields: dict[str, object]) -> RequestFigures | None:
    """Parses times and sizes; None when a value is not what nginx writes."""
    get = fields.get
    try:
        figures = RequestFigures(
            get("total_s"),  # type: ignore[arg-type]
            float(get("header_s")),  # type: ignore[arg-type]
            float(get("response_s")),  # type: ignore[arg-type]
            get("bytes_in"),  # type: ignore[arg-type]
            get("bytes_out"),  # type: ignore[arg-type]
        )
        total_s, first_byte_s, response_s, bytes_in, bytes_out = figures
        times = 0 <= total_s <= MAX_S and 0 <= first_byte_s <= MAX_S and 0 <= response_s <= MAX_S
        return figures if times and 0 <= bytes_in <= MAX_BYTES and 0 <= bytes_out <= MAX_BYTES else None
    except (TypeError, ValueError, OverflowError):
        return None


def open_group(request: LoggedRequest, known: ClusterLabels, client: str, slo: Slo | None) -> RequestGroup | None:
    """Creates the group of an ordinary request; None for any other request. `client` is the label of its key."""
    engine = known.engine(request)
    ordinary = len(request.attempts) == 1 and request.attempts[0].outcome is AttemptOutcome.OK and not request.fallback
    if not (ordinary and request.ok and engine in known.pool_of and known.engine_at.get(request.attempts[0].address)):
        return None
    pool, status = known.responsible_pool(request), status_label(request.status)
    once = [
        counter(REQUESTS, pool, engine, status, "", cache_label(request.cache)),
        counter(ATTEMPTS, *known.attempted(request, request.attempts[0]), AttemptOutcome.OK.value),
    ]
    if client:
        once.append(counter(KEY_REQUESTS, client, status_class(request.status)))
    never, always = -1.0, MAX_S
    return RequestGroup(
        engine=engine,
        pool=known.pool_of[engine],
        counted_once=tuple(once),
        seconds=histogram(SECONDS, pool, engine),
        first_byte_seconds=histogram(FIRST_BYTE_SECONDS, pool, engine),
        within_slo=counter(WITHIN_SLO, pool, engine),
        bytes_in=counter(BYTES_IN, pool),
        bytes_out=counter(BYTES_OUT, pool),
        slowest=(slo.latency_s if slo else never, slo.ttft_s if slo and request.streamed else always),
    )
