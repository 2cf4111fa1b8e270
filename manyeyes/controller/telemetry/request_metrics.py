"""What the gateway's request log tells Prometheus: who asked, who answered, how long it took. Names and help are in metrics.py.

Series: requests x engines x few statuses, and per engine 2 x 24 buckets. What is configured starts at 0, so that a rate is 0 and not missing.
"""

from collections import Counter as Tally

from manyeyes.config.cluster import Cluster
from manyeyes.config.slo import Slo
from manyeyes.controller.telemetry import metric_labels
from manyeyes.controller.telemetry.access_log_parser import Outcome, Request
from manyeyes.controller.telemetry.metric_labels import Known
from manyeyes.controller.telemetry.metrics import (
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

CLIENT_LEFT = 499
USUAL_FAILURES = (500, 502, 503, 504)
"""From 0 on, so that the first of them is a change that a rate sees, and an alert."""
USUAL_REFUSALS = (400, 401, 403, 404, 405, 413, 415, 429, 503)


def start_at_zero(cluster: Cluster) -> None:
    """Every series that a configured pool or engine will have on an ordinary day."""
    for engine in cluster.explicit_engines:
        for status in (200, *USUAL_FAILURES):
            REQUESTS.labels(engine.pool, engine.name, str(status), "", "")
        WITHIN_SLO.labels(engine.pool, engine.name)
        SECONDS.labels(engine.pool, engine.name)
        FIRST_BYTE_SECONDS.labels(engine.pool, engine.name)
        for outcome in Outcome:
            ATTEMPTS.labels(engine.pool, engine.name, outcome.value)
    for pool in cluster.served_pools:
        REQUESTS.labels(pool.name, "", "200", "", "HIT")
        REQUESTS.labels(pool.name, "", "503", "", "")
        SLO_SUCCESS.labels(pool.name).set(pool.slo.success)
        SLO_WITHIN.labels(pool.name).set(pool.slo.share)
        SLO_TOTAL_S.labels(pool.name).set(pool.slo.total_s)
        SLO_FIRST_S.labels(pool.name).set(pool.slo.first_s)
        RETRIES.labels(pool.name)
        BYTES_IN.labels(pool.name)
        BYTES_OUT.labels(pool.name)
        if pool.fallback:
            FALLBACKS.labels(pool.name, pool.fallback)
    for status in USUAL_REFUSALS:
        REFUSED.labels(str(status))


def count(request: Request, known: Known, key: str, slo: Slo | None = None) -> None:
    """One request. `key` is its label, empty for none; `slo` what its pool promises."""
    pool, engine = known.asked(request), known.engine(request)
    status = metric_labels.status(request.status)
    fallback = "1" if request.fallback else ""
    counter(REQUESTS, pool, engine, status, fallback, metric_labels.cache(request.cache)).inc()
    counter(BYTES_IN, pool).inc(request.bytes_in)
    counter(BYTES_OUT, pool).inc(request.bytes_out)
    if request.ok and (request.attempts or request.cached):
        if request.total_s is not None:
            histogram(SECONDS, pool, engine).observe(request.total_s)
        if request.first_byte_s is not None:
            histogram(FIRST_BYTE_SECONDS, pool, engine).observe(request.first_byte_s)
        if slo and keeps(request, slo):
            counter(WITHIN_SLO, pool, engine).inc()
    if request.attempts:
        _count_attempts(request, known)
    elif request.status >= 400 and request.status != CLIENT_LEFT:
        counter(REFUSED, status).inc()
    if request.fallback:
        counter(FALLBACKS, known.pool(request.fallback), pool).inc()
    if key:
        counter(KEY_REQUESTS, key, metric_labels.status_class(request.status)).inc()


def keeps(request: Request, slo: Slo) -> bool:
    """Whether a successful request took no longer than its pool's objective allows."""
    if request.total_s is None or request.total_s > slo.total_s:
        return False
    return not request.streamed or request.first_byte_s is None or request.first_byte_s <= slo.first_s


def _count_attempts(request: Request, known: Known) -> None:
    asked: Tally[str] = Tally()
    for attempt in request.attempts:
        pool, engine = known.attempted(request, attempt)
        counter(ATTEMPTS, pool, engine, attempt.outcome.value).inc()
        asked[pool] += 1
    for pool, times in asked.items():
        if times > 1:
            counter(RETRIES, pool).inc()
