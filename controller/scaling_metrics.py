"""What scaling tells Prometheus."""

import contextlib

from prometheus_client import Counter, Gauge

from controller.scaling.decide import Reason
from controller.scaling.need import Load

WANTED = Gauge("manyeyes_scaling_wanted", "Engines that the pool should have.", ["pool"])
STARTED = Gauge(
    "manyeyes_scaling_started", "Engines of the pool that are not at rest, whether they serve or not.", ["pool"]
)
FIXED = Gauge("manyeyes_scaling_fixed", "1 while the count is set by hand.", ["pool"])
REASON = Gauge("manyeyes_scaling_reason", "1 for what the last decision rests on, 0 for the rest.", ["pool", "reason"])
DECIDED = Gauge("manyeyes_scaling_last_decision_timestamp_seconds", "When the last decision was taken.", ["pool"])
CHANGES = Counter("manyeyes_scaling_changes_total", "Changes of the wanted count.", ["pool", "direction"])
FAILURES = Counter(
    "manyeyes_scaling_failures_total", "Engines that could not be started, stopped, woken or put to sleep.", ["pool"]
)
RESTARTS = Counter(
    "manyeyes_hung_restarts_total", "Engines restarted because they ran and did not answer.", ["engine", "pool"]
)
LOAD = Gauge(
    "manyeyes_scaling_load",
    "What decisions rest on: in_flight (requests), serving (engines), queue_s, p95_s (seconds), gpu (0 to 1). No sample: not known.",
    ["pool", "kind"],
)
KINDS = ("in_flight", "serving", "queue_s", "p95_s", "gpu")


def start_pool(pool: str) -> None:
    """Counters that are 0 and not missing."""
    for direction in ("up", "down"):
        CHANGES.labels(pool, direction)
    FAILURES.labels(pool)


def tell_load(pool: str, load: Load) -> None:
    for kind in KINDS:
        value = getattr(load, kind)
        if value is None:
            with contextlib.suppress(KeyError):
                LOAD.remove(pool, kind)
        else:
            LOAD.labels(pool, kind).set(value)


def tell_reason(pool: str, current: Reason) -> None:
    for reason in Reason:
        REASON.labels(pool, reason.value).set(reason is current)


def forget_pool(pool: str) -> None:
    """Drops the series of a pool that is no longer there."""
    for gauge in (WANTED, STARTED, FIXED, DECIDED):
        with contextlib.suppress(KeyError):
            gauge.remove(pool)
    for reason in Reason:
        with contextlib.suppress(KeyError):
            REASON.remove(pool, reason.value)
    for kind in KINDS:
        with contextlib.suppress(KeyError):
            LOAD.remove(pool, kind)
