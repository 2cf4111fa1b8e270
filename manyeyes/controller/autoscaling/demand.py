"""How many engines a load needs. Pure: one sample of a pool in, a count out.

The arithmetic of Kubernetes' HorizontalPodAutoscaler (kubernetes.io/docs/concepts/workloads/autoscaling/horizontal-pod-autoscale):
each measure by its target, rounded up, the largest answer of all measures, no change within a tolerance. Two things differ:

* Requests in flight are counted for the pool as a whole, so that engines that are starting do not change the answer.
* Times do not grow in proportion to the load: they are flat until an engine is full, then steep. They ask for more engines in
  proportion, but for fewer only one at a time and at half their target; beside a measure that is proportional, not at all.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil

from manyeyes.config.scaling import Target

CALM = 0.5
"""Times at this part of their target or below say that one engine fewer may do."""


@dataclass(frozen=True, slots=True)
class PoolLoad:
    """A whole pool at one moment. None: not known."""

    at_s: float
    """Seconds since 1970."""
    serving: int
    """Engines that got new requests."""
    in_flight: float | None = None
    """Requests in all engines together, those that run and those that wait."""
    queue_time_s: float | None = None
    """Average wait in the engines' queues, of the requests that left them since the previous probe."""
    p95_s: float | None = None
    """What 95 % of the last minute's requests took at most."""
    gpu: float | None = None
    """Busy part of the GPUs that serve the pool, 0 to 1."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What a load asks for. Between `least` and `most` nothing need change; both None: it says nothing."""

    at_s: float
    least: int | None
    """Fewer would be too few."""
    most: int | None
    """More would be too many."""
    why: str
    """The measure that asks for most, with its numbers."""


def compute_demand(load: PoolLoad, target: Target, tolerance: float, times_count: bool = True) -> Demand:
    """The engines that `load` needs. `times_count`: False while times still tell of another number of engines."""
    if load.serving == 0:
        # Nobody serves, so nothing is in flight and nothing is slow: that is no reason to have fewer engines.
        return Demand(load.at_s, None, None, "no engine serves, so its load says nothing")
    asked = list(_by_measure(load, target, tolerance, times_count))
    known = [(least, most, why) for least, most, why in asked if least is not None and most is not None]
    if not known or len(known) < len(asked):
        # A measure that is missing might be the one that is high. More engines on what is known, fewer on no account.
        least, why = max(((least, why) for least, _, why in known), default=(None, "nothing is known of its load"))
        return Demand(load.at_s, least, None, why)
    least, _, why = max(known)
    return Demand(load.at_s, least, max(most for _, most, _ in known), why)


def _by_measure(
    load: PoolLoad, target: Target, tolerance: float, times_count: bool
) -> Iterator[tuple[int | None, int | None, str]]:
    if target.in_flight is not None:
        if load.in_flight is None:
            yield None, None, ""
        else:
            ratio = load.in_flight / target.in_flight
            why = f"{load.in_flight:.3g} in flight at {target.in_flight:.3g} an engine"
            yield ceil(ratio / (1 + tolerance)), ceil(ratio / (1 - tolerance)), why
    if target.gpu is not None:
        if load.gpu is None:
            yield None, None, ""
        else:
            ratio = load.serving * load.gpu / target.gpu
            why = f"GPUs are busy for {load.gpu:.0%}, wanted {target.gpu:.0%}"
            yield ceil(ratio / (1 + tolerance)), ceil(ratio / (1 - tolerance)), why
    proportional = target.in_flight is not None or target.gpu is not None
    for value, wanted, words in (
        (load.queue_time_s, target.queue_time_s, "requests wait {:.3g} s in queues"),
        (load.p95_s, target.p95_s, "95 % of requests take up to {:.3g} s"),
    ):
        if wanted is not None:
            least, most, why = _by_time(load.serving, value, wanted, words, tolerance, times_count)
            yield least, least if proportional else most, why


def _by_time(
    serving: int, value: float | None, wanted: float, words: str, tolerance: float, counts: bool
) -> tuple[int, int, str]:
    # Too few requests for a figure: nobody waits.
    why = "few requests" if value is None else f"{words.format(value)}, wanted {wanted:.3g} s"
    if not counts:
        return 1, serving, why
    ratio = (value or 0) / wanted
    if ratio > 1 + tolerance:
        return ceil(serving * ratio), ceil(serving * ratio), why
    return 1, max(1, serving - 1) if ratio <= CALM else serving, why
