"""Decides how many engines a pool should have. Pure: the inputs are policy, recent demand, recent changes and time.

Two rules are the same as elsewhere:

* A stabilisation window in each direction, and the most cautious value within it (Kubernetes' HorizontalPodAutoscaler,
  `behavior.scaleUp|scaleDown.stabilizationWindowSeconds`): scale up to the smallest demand of a short window, scale
  down to the largest demand of a long window.
* A limit on each step and a pause after it (HorizontalPodAutoscaler's `policies`; KEDA's `cooldownPeriod`).

Knative's panic mode (knative.dev/docs/serving/autoscaling/kpa-specific) is left out. It shortens the window when the
load doubles, for instances that start within a second. Here the window is 15 s and an engine takes a minute to start,
so the gain would be small.

One rule is new: the scale-down window doubles for each time in the last hour that removed engines were needed again.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from itertools import pairwise
from zoneinfo import ZoneInfo

from manyeyes.config.engines import Engine, max_num_seqs
from manyeyes.config.pools import Pool
from manyeyes.config.scaling import EVERY_DAY, Scaling, ScheduledEngines, Target
from manyeyes.controller.autoscaling import demand
from manyeyes.controller.autoscaling.demand import Demand, PoolLoad


def scheduled_engines(scaling: Scaling, at_s: float) -> int:
    """Engines that the schedule requires at `at_s` (seconds since 1970). Start times (`ready_s`) are anticipated."""
    return max((_scheduled_at(scaling, at_s + ahead_s) for ahead_s in (0.0, scaling.ready_s)), default=0)


def _scheduled_at(scaling: Scaling, at_s: float) -> int:
    local = datetime.fromtimestamp(at_s, ZoneInfo(scaling.time_zone))
    return max((keep.engines for keep in scaling.schedule if _holds(keep, local)), default=0)


def _holds(keep: ScheduledEngines, local: datetime) -> bool:
    """Whether a schedule entry covers `local`.

    Clock times are compared, so that days with a clock change are covered too.
    """
    now, begin, end = local.hour * 60 + local.minute, _minutes(keep.begin), _minutes(keep.end)
    if begin < end:
        return _day(local) in keep.days and begin <= now < end
    # The entry ends on the next day.
    if now >= begin:
        return _day(local) in keep.days
    return now < end and _day(local - timedelta(days=1)) in keep.days


def _day(local: datetime) -> str:
    return EVERY_DAY[local.weekday()]


def _minutes(clock: str) -> int:
    hours, minutes = clock.split(":")
    return int(hours) * 60 + int(minutes)


MEMORY_S = 3600.0
"""How long a reversal (a scale-up after a scale-down) lengthens the scale-down window."""
LONGEST = 8
"""The scale-down window grows at most to this multiple of its configured length."""


class DecisionReason(Enum):
    LOAD = "load"
    HOURS = "hours"
    LIMITS = "limits"
    BY_HAND = "by_hand"
    WINDOW = "window"
    """The load requires a change, but not for the whole window."""
    COOL_DOWN = "cool_down"
    UNKNOWN = "unknown"
    """The load is not known well enough."""
    ENOUGH = "enough"


@dataclass(frozen=True, slots=True)
class ReplicaChange:
    at_s: float
    before: int
    after: int


@dataclass(frozen=True, slots=True)
class ScalingDecision:
    """One decision. `sentence` states the desired count and the reason, for operators."""

    at_s: float
    desired: int
    reason: DecisionReason
    sentence: str


def decide(
    scaling: Scaling,
    max_engines: int,
    desired: int,
    needs: Sequence[Demand],
    changes: Sequence[ReplicaChange],
    now_s: float,
    always: int = 0,
) -> ScalingDecision:
    """Decides the desired count.

    `max_engines` is the number of engines of the pool, `desired` the desired count so far, `always` the number of
    serving engines that cannot be stopped. `needs` and `changes` are sorted, oldest first.
    """
    by_hour = scheduled_engines(scaling, now_s)
    min_engines = min(max_engines, max(scaling.min, by_hour, always))
    max_engines = max(min_engines, min(max_engines, scaling.max or max_engines))
    if desired < min_engines:
        if min_engines == always:
            why = f"the controller cannot stop {always} of the serving engines"
            return _changed(now_s, desired, min_engines, DecisionReason.LIMITS, why)
        if min_engines == by_hour:
            return _changed(now_s, desired, min_engines, DecisionReason.HOURS, "the schedule requires it")
        return _changed(now_s, desired, min_engines, DecisionReason.LIMITS, f"min is {scaling.min}")
    if desired > max_engines:
        return _changed(now_s, desired, max_engines, DecisionReason.LIMITS, f"the maximum is {max_engines}")
    if not needs:
        return _unchanged(now_s, desired, DecisionReason.UNKNOWN, "its load is not known yet")
    up = _for_all_of(needs, now_s, scaling.scale_up.window_s)
    if up is not None and up > desired:
        return _scale_up(scaling, max_engines, desired, up, needs[-1], changes, now_s)
    window_s = scaling.scale_down.window_s * min(LONGEST, 1 << reversals(changes, now_s))
    down = _at_any_time_of(needs, now_s, window_s)
    latest = needs[-1]
    if down is None:
        if latest.max_engines is None:
            return _unchanged(now_s, desired, DecisionReason.UNKNOWN, latest.why)
        return _unchanged(now_s, desired, DecisionReason.WINDOW, f"its load is known for less than {window_s:.0f} s")
    if max(down, min_engines) < desired:
        return _scale_down(scaling, desired, max(down, min_engines), latest, changes, window_s, now_s)
    if latest.max_engines is not None and max(latest.max_engines, min_engines) < desired:
        return _unchanged(
            now_s, desired, DecisionReason.WINDOW, f"{latest.why}, but in the last {window_s:.0f} s it needed more"
        )
    if latest.min_engines is not None and latest.min_engines > desired:
        reason = DecisionReason.LIMITS if desired == max_engines else DecisionReason.WINDOW
        but = (
            f"the maximum is {max_engines}"
            if desired == max_engines
            else f"for less than {scaling.scale_up.window_s:.0f} s"
        )
        return _unchanged(now_s, desired, reason, f"{latest.why}, but {but}")
    return _unchanged(now_s, desired, DecisionReason.ENOUGH, latest.why)


def decide_manual(max_engines: int, desired: int, fixed: int, now_s: float) -> ScalingDecision:
    """Decides the count when an operator has set it by hand."""
    count = min(max_engines, fixed)
    if count == desired:
        return _unchanged(now_s, count, DecisionReason.BY_HAND, "set by hand")
    return _changed(now_s, desired, count, DecisionReason.BY_HAND, "set by hand")


def reversals(changes: Sequence[ReplicaChange], now_s: float) -> int:
    """How often in the last hour a scale-up directly followed a scale-down."""
    recent = [change for change in changes if now_s - change.at_s <= MEMORY_S]
    return sum(before.after < before.before and after.after > after.before for before, after in pairwise(recent))


def _scale_up(
    scaling: Scaling,
    max_engines: int,
    desired: int,
    needed: int,
    latest: Demand,
    changes: Sequence[ReplicaChange],
    now_s: float,
) -> ScalingDecision:
    if desired == max_engines:
        return _unchanged(now_s, desired, DecisionReason.LIMITS, f"{latest.why}, but the maximum is {max_engines}")
    last = next((change for change in reversed(changes) if change.after > change.before), None)
    if last and now_s - last.at_s < scaling.scale_up.cool_down_s:
        return _unchanged(
            now_s, desired, DecisionReason.COOL_DOWN, f"{latest.why}, but the last scale-up is too recent"
        )
    return _changed(
        now_s, desired, min(needed, max_engines, desired + scaling.scale_up.step), DecisionReason.LOAD, latest.why
    )


def _scale_down(
    scaling: Scaling,
    desired: int,
    needed: int,
    latest: Demand,
    changes: Sequence[ReplicaChange],
    window_s: float,
    now_s: float,
) -> ScalingDecision:
    last = changes[-1] if changes else None
    # Engines added for a short peak stay for a whole window, even when the average load never required them.
    pause_s = (
        max(window_s, scaling.scale_down.cool_down_s)
        if last and last.after > last.before
        else scaling.scale_down.cool_down_s
    )
    if last and now_s - last.at_s < pause_s:
        return _unchanged(now_s, desired, DecisionReason.COOL_DOWN, f"{latest.why}, but the last change is too recent")
    return _changed(now_s, desired, max(needed, desired - scaling.scale_down.step), DecisionReason.LOAD, latest.why)


def _unchanged(now_s: float, desired: int, reason: DecisionReason, why: str) -> ScalingDecision:
    return ScalingDecision(now_s, desired, reason, f"stays at {desired}: {why}")


def _changed(now_s: float, before: int, after: int, reason: DecisionReason, why: str) -> ScalingDecision:
    return ScalingDecision(
        now_s, after, reason, f"scales from {before} to {after} engine{'' if after == 1 else 's'}: {why}"
    )


def _for_all_of(needs: Sequence[Demand], now_s: float, window_s: float) -> int | None:
    """The demand that held throughout the window: the smallest `min_engines` of its samples.

    None when the last sample has none, or when the samples cover less than the window.
    """
    smallest = needs[-1].min_engines
    if smallest is None:
        return None
    for need in reversed(needs):
        smallest = smallest if need.min_engines is None else min(smallest, need.min_engines)
        if now_s - need.at_s >= window_s:
            return smallest
    return None


def _at_any_time_of(needs: Sequence[Demand], now_s: float, window_s: float) -> int | None:
    """The count that would have been enough at any time in the window; None when it is not known for all of it."""
    largest: int | None = None
    for need in reversed(needs):
        if need.max_engines is None:
            return None
        largest = need.max_engines if largest is None else max(largest, need.max_engines)
        if now_s - need.at_s >= window_s:
            return largest
    return None


MEAN_S = 60.0
"""In-flight counts are averaged over this time before a scale-down: requests arrive in bursts, and the highest count
of ten minutes would depend more on chance than on load."""
TIMES_SETTLE_S = 75.0
"""Times cover the last minute, so they are not used for this long after the number of serving engines changes."""
PART_OF_BATCH = 5
"""The default target is a fifth of the requests that an engine runs in parallel: the GPU is then used well, and
there is room for new requests while another engine starts (docs/benchmarks/autoscaling.md has the simulated day)."""


def with_default_target(pool: Pool, engines: tuple[Engine, ...]) -> Scaling | None:
    """The pool's policy, with the default target computed from its smallest engine.

    None when the pool is not scaled.
    """
    scaling = pool.scaling
    if scaling is None or not scaling.target.is_unset:
        return scaling
    batch = min((max_num_seqs(pool, engine) for engine in engines if engine.pool == pool.name), default=1)
    return scaling.model_copy(update={"target": Target(in_flight=max(1, batch // PART_OF_BATCH))})


class PoolAutoscaler:
    """Collects samples of one pool and makes its decisions. `fixed` is a count set by hand; None removes it."""

    def __init__(self, scaling: Scaling | None, desired: int, fixed: int | None = None) -> None:
        self.scaling = scaling
        self.desired = desired
        self.fixed = fixed
        self.changes: deque[ReplicaChange] = deque(maxlen=500)
        self._loads: deque[PoolLoad] = deque()
        self._needs: deque[Demand] = deque()
        self._serving: tuple[int, float] = (-1, 0.0)
        """How many engines serve, and since when."""

    def see(self, load: PoolLoad) -> None:
        """Adds one sample, which must be later than all previous samples."""
        if load.serving != self._serving[0]:
            self._serving = (load.serving, load.at_s)
        self._loads.append(load)
        while load.at_s - self._loads[0].at_s > MEAN_S:
            self._loads.popleft()
        if self.scaling is None:
            return
        self._needs.append(self._need(self.scaling, load))
        oldest_s = load.at_s - max(self.scaling.scale_up.window_s, LONGEST * self.scaling.scale_down.window_s) - MEAN_S
        while self._needs[0].at_s < oldest_s:
            self._needs.popleft()

    def decide(self, max_engines: int, now_s: float, always: int = 0) -> ScalingDecision:
        """Makes a decision and stores its count in `desired`.

        `max_engines` is the number of engines of the pool, `always` the number of serving engines that cannot be
        stopped.
        """
        if self.fixed is not None:
            decision = decide_manual(max_engines, self.desired, self.fixed, now_s)
        elif self.scaling is None:
            decision = ScalingDecision(
                now_s, self.desired, DecisionReason.ENOUGH, "is not scaled: pools[].scaling is null"
            )
        else:
            decision = decide(self.scaling, max_engines, self.desired, self._needs, self.changes, now_s, always)
        if decision.desired != self.desired:
            self.changes.append(ReplicaChange(now_s, self.desired, decision.desired))
            self.desired = decision.desired
        while self.changes and now_s - self.changes[0].at_s > 2 * MEMORY_S:
            self.changes.popleft()
        return decision

    def adopt(self, serving: int, now_s: float) -> None:
        """Raises `desired` when more engines serve: an operator started them, or a broken engine recovered.

        They stay as if they had been added for load, and are removed when they are not needed. A count set by hand has
        priority.
        """
        if self.fixed is None and self.scaling is not None and serving > self.desired:
            self.changes.append(ReplicaChange(now_s, self.desired, serving))
            self.desired = serving

    def _need(self, scaling: Scaling, load: PoolLoad) -> Demand:
        settled = load.at_s - self._serving[1] >= TIMES_SETTLE_S
        now = demand.compute_demand(load, scaling.target, scaling.tolerance, settled)
        if load.in_flight is None or now.max_engines is None:
            return now
        counts = [past.in_flight for past in self._loads if past.in_flight is not None]
        mean = PoolLoad(load.at_s, load.serving, sum(counts) / len(counts), load.queue_time_s, load.p95_s, load.gpu)
        return Demand(
            now.at_s,
            now.min_engines,
            demand.compute_demand(mean, scaling.target, scaling.tolerance, settled).max_engines,
            now.why,
        )
