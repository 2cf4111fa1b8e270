"""What scaling tells Prometheus; names and help are in metrics.py."""

import contextlib

from manyeyes.controller.autoscaling.demand import PoolLoad
from manyeyes.controller.autoscaling.policy import DecisionReason
from manyeyes.controller.telemetry.metrics import HUNG_RESTARTS as RESTARTS
from manyeyes.controller.telemetry.metrics import SCALING_CHANGES as CHANGES
from manyeyes.controller.telemetry.metrics import SCALING_DECIDED as DECIDED
from manyeyes.controller.telemetry.metrics import SCALING_FAILURES as FAILURES
from manyeyes.controller.telemetry.metrics import SCALING_FIXED as FIXED
from manyeyes.controller.telemetry.metrics import SCALING_LOAD as LOAD
from manyeyes.controller.telemetry.metrics import SCALING_REASON as REASON
from manyeyes.controller.telemetry.metrics import SCALING_STARTED as STARTED
from manyeyes.controller.telemetry.metrics import SCALING_WANTED as WANTED

__all__ = ["CHANGES", "DECIDED", "FAILURES", "FIXED", "RESTARTS", "STARTED", "WANTED"]

KINDS = ("in_flight", "serving", "queue_s", "p95_s", "gpu")


def initialize_pool(pool: str) -> None:
    """Counters that are 0 and not missing."""
    for direction in ("up", "down"):
        CHANGES.labels(pool, direction)
    FAILURES.labels(pool)


def record_load(pool: str, load: PoolLoad) -> None:
    for kind in KINDS:
        value = getattr(load, kind)
        if value is None:
            with contextlib.suppress(KeyError):
                LOAD.remove(pool, kind)
        else:
            LOAD.labels(pool, kind).set(value)


def record_reason(pool: str, current: DecisionReason) -> None:
    for reason in DecisionReason:
        REASON.labels(pool, reason.value).set(reason is current)


def remove_pool(pool: str) -> None:
    """Drops the series of a pool that is no longer there."""
    for gauge in (WANTED, STARTED, FIXED, DECIDED):
        with contextlib.suppress(KeyError):
            gauge.remove(pool)
    for reason in DecisionReason:
        with contextlib.suppress(KeyError):
            REASON.remove(pool, reason.value)
    for kind in KINDS:
        with contextlib.suppress(KeyError):
            LOAD.remove(pool, kind)
