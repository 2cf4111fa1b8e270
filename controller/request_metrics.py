"""What the gateway's request log tells Prometheus: who asked, who answered, how long it took.

Series: requests x engines x few statuses, and per engine 2 x 24 buckets. What is configured starts at 0, so that a rate is 0 and not missing.
"""

from collections import Counter as Tally
from functools import lru_cache

from prometheus_client import Counter, Histogram

from config.cluster import Cluster
from controller import request_labels
from controller.request_labels import Known
from controller.requests import Outcome, Request

BUCKETS_S = (
    *(0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.4, 0.6),
    *(1, 1.5, 2.5, 4, 6, 10, 15, 25, 40, 60, 120, 300),
)
"""Each about 1.6 times the one before, where people wait: from a text's first token to a video on a busy engine."""
CLIENT_LEFT = 499
USUAL_REFUSALS = (400, 401, 403, 404, 405, 413, 415, 429, 503)

REQUESTS = Counter(
    "manyeyes_requests_total",
    "Requests by the pool that answered (or was asked for), the engine, what the client got, whether another pool stood in (1), and the cache.",
    ["pool", "engine", "status", "fallback", "cache"],
)
SECONDS = Histogram(
    "manyeyes_request_seconds",
    "Successful requests, from the first byte read from the client to the last byte sent; engine is empty for the cache.",
    ["pool", "engine"],
    buckets=BUCKETS_S,
)
FIRST_BYTE_SECONDS = Histogram(
    "manyeyes_first_byte_seconds",
    "Successful requests, from being sent to the first engine until the first byte of the answer, retries included.",
    ["pool", "engine"],
    buckets=BUCKETS_S,
)
ATTEMPTS = Counter(
    "manyeyes_attempts_total",
    "Engines asked, by what came of it: " + ", ".join(outcome.value for outcome in Outcome) + ".",
    ["pool", "engine", "outcome"],
)
RETRIES = Counter("manyeyes_retries_total", "Requests for which a second engine of the pool was asked.", ["pool"])
FALLBACKS = Counter("manyeyes_fallbacks_total", "Requests for one pool that another one answered.", ["pool", "to"])
REFUSED = Counter(
    "manyeyes_refused_total", "Requests that the gateway refused without asking an engine, by status.", ["status"]
)
BYTES_IN = Counter("manyeyes_bytes_in_total", "Bytes of requests, with their headers.", ["pool"])
BYTES_OUT = Counter("manyeyes_bytes_out_total", "Bytes of answers, with their headers.", ["pool"])
KEY_REQUESTS = Counter(
    "manyeyes_key_requests_total", "Requests by the name of the client's API key.", ["key", "status_class"]
)
UNREADABLE = Counter("manyeyes_request_log_unreadable_total", "Log datagrams that tell of no request.")
DROPPED = Counter(
    "manyeyes_request_log_dropped_total", "Log datagrams that the system threw away because they came too fast."
)


def start_at_zero(cluster: Cluster) -> None:
    """Every series that a configured pool or engine will have on an ordinary day."""
    for engine in cluster.explicit_engines:
        REQUESTS.labels(engine.pool, engine.name, "200", "", "")
        SECONDS.labels(engine.pool, engine.name)
        FIRST_BYTE_SECONDS.labels(engine.pool, engine.name)
        for outcome in Outcome:
            ATTEMPTS.labels(engine.pool, engine.name, outcome.value)
    for pool in cluster.served_pools:
        REQUESTS.labels(pool.name, "", "200", "", "HIT")
        RETRIES.labels(pool.name)
        BYTES_IN.labels(pool.name)
        BYTES_OUT.labels(pool.name)
        if pool.fallback:
            FALLBACKS.labels(pool.name, pool.fallback)
    for status in USUAL_REFUSALS:
        REFUSED.labels(str(status))


def count(request: Request, known: Known, key: str) -> None:
    """One request. `key` is its label, empty for none."""
    pool, engine = known.asked(request), known.engine(request)
    status = request_labels.status(request.status)
    fallback = "1" if request.fallback else ""
    _counter(REQUESTS, pool, engine, status, fallback, request_labels.cache(request.cache)).inc()
    _counter(BYTES_IN, pool).inc(request.bytes_in)
    _counter(BYTES_OUT, pool).inc(request.bytes_out)
    if request.ok and (request.attempts or request.cached):
        if request.total_s is not None:
            _histogram(SECONDS, pool, engine).observe(request.total_s)
        if request.first_byte_s is not None:
            _histogram(FIRST_BYTE_SECONDS, pool, engine).observe(request.first_byte_s)
    if request.attempts:
        _count_attempts(request, known)
    elif request.status >= 400 and request.status != CLIENT_LEFT:
        _counter(REFUSED, status).inc()
    if request.fallback:
        _counter(FALLBACKS, known.pool(request.fallback), pool).inc()
    if key:
        _counter(KEY_REQUESTS, key, request_labels.status_class(request.status)).inc()


def _count_attempts(request: Request, known: Known) -> None:
    asked: Tally[str] = Tally()
    for attempt in request.attempts:
        pool, engine = known.attempted(request, attempt)
        _counter(ATTEMPTS, pool, engine, attempt.outcome.value).inc()
        asked[pool] += 1
    for pool, times in asked.items():
        if times > 1:
            _counter(RETRIES, pool).inc()


@lru_cache(maxsize=8192)
def _counter(counter: Counter, *labels: str) -> Counter:
    """One series; the library's own way to it costs 1.3 µs and this 0.2, seven times per request."""
    return counter.labels(*labels)


@lru_cache(maxsize=8192)
def _histogram(histogram: Histogram, *labels: str) -> Histogram:
    return histogram.labels(*labels)
