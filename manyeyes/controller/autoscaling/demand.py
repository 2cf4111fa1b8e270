"""Computes how many engines a load needs. Pure: it maps one sample of a pool to a count.

The arithmetic is that of Kubernetes' HorizontalPodAutoscaler
(kubernetes.io/docs/concepts/workloads/autoscaling/horizontal-pod-autoscale): each measure is divided by its target and
rounded up, the largest result counts, and nothing changes within a tolerance. There are two differences:

* Requests in flight are counted for the whole pool, so that starting engines do not change the result.
* Times are not proportional to the load: they stay flat until an engine is full and then rise steeply. A high time adds
  engines in proportion. A low time removes only one engine at a time, and only at half its target. When the policy also
  has a proportional target, times never remove engines.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil

from manyeyes.config.scaling import Target

CALM = 0.5
"""At or below this share of its target, a time allows one engine fewer."""


@dataclass(frozen=True, slots=True)
class PoolLoad:
    """The load of a whole pool at one moment. None means unknown."""

    at_s: float
    """Seconds since 1970."""
    serving: int
    """Engines that get new requests."""
    in_flight: float | None = None
    """Requests in all engines together, running and waiting."""
    queue_time_s: float | None = None
    """Average time in the engines' queues, of the requests that left them since the previous sample."""
    p95_s: float | None = None
    """95th percentile of the durations of the last minute's requests."""
    gpu: float | None = None
    """Utilization of the GPUs that serve the pool, 0 to 1."""


@dataclass(frozen=True, slots=True)
class Demand:
    """The engines that a load needs.

    A count from `min_engines` to `max_engines` needs no change; both are None when it is unknown.
    """

    at_s: float
    min_engines: int | None
    """The smallest sufficient count."""
    max_engines: int | None
    """The largest count that is not too high."""
    why: str
    """The measure with the highest demand, with its numbers."""


def compute_demand(load: PoolLoad, target: Target, tolerance: float, times_count: bool = True) -> Demand:
    """Computes the engines that `load` needs.

    `times_count` is False while times were measured with another engine count.
    """
    if load.serving == 0:
        # No engine serves, so nothing is in flight and nothing is slow. That is no reason to remove engines.
        return Demand(load.at_s, None, None, "no engine serves, so its load is unknown")
    needs = list(_by_measure(load, target, tolerance, times_count))
    known = [
        (min_engines, max_engines, why)
        for min_engines, max_engines, why in needs
        if min_engines is not None and max_engines is not None
    ]
    if not known or len(known) < len(needs):
        # A missing measure might be high. The known measures may add engines, but none are removed.
        min_engines, why = max(
            ((min_engines, why) for min_engines, _, why in known), default=(None, "its load is unknown")
        )
        return Demand(load.at_s, min_engines, None, why)
    min_engines, _, why = max(known)
    return Demand(load.at_s, min_engines, max(max_engines for _, max_engines, _ in known), why)


def _by_measure(
    load: PoolLoad, target: Target, tolerance: float, times_count: bool
) -> Iterator[tuple[int | None, int | None, str]]:
    if target.in_flight is not None:
        if load.in_flight is None:
            yield None, None, ""
        else:
            ratio = load.in_flight / target.in_flight
            why = f"{load.in_flight:.3g} requests in flight, target {target.in_flight:.3g} per engine"
            yield ceil(ratio / (1 + tolerance)), ceil(ratio / (1 - tolerance)), why
    if target.gpu is not None:
        if load.gpu is None:
            yield None, None, ""
        else:
            ratio = load.serving * load.gpu / target.gpu
            why = f"GPU utilization is {load.gpu:.0%}, target {target.gpu:.0%}"
            yield ceil(ratio / (1 + tolerance)), ceil(ratio / (1 - tolerance)), why
    proportional = target.in_flight is not None or target.gpu is not None
    for value, limit, template in (
        (load.queue_time_s, target.queue_time_s, "requests wait {:.3g} s in queues"),
        (load.p95_s, target.p95_s, "the 95th percentile of request times is {:.3g} s"),
    ):
        if limit is not None:
            min_engines, max_engines, why = _by_time(load.serving, value, limit, template, tolerance, times_count)
            yield min_engines, min_engines if proportional else max_engines, why


def _by_time(
    serving: int, value: float | None, limit: float, template: str, tolerance: float, counts: bool
) -> tuple[int, int, str]:
    # None means too few requests for a value, so no request waits.
    why = "few requests" if value is None else f"{template.format(value)}, target {limit:.3g} s"
    if not counts:
        return 1, serving, why
    ratio = (value or 0) / limit
    if ratio > 1 + tolerance:
        return ceil(serving * ratio), ceil(serving * ratio), why
    return 1, max(1, serving - 1) if ratio <= CALM else serving, why
