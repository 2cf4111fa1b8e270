"""One pool's scaling: what was seen, what was changed, what is wanted. Without a clock or a socket, so that the controller, a
replay and a simulated day run the same code."""

from collections import deque

from manyeyes.config.engines import Engine, max_num_seqs
from manyeyes.config.pools import Pool
from manyeyes.config.scaling import Scaling, Target
from manyeyes.controller.autoscaling import demand, policy
from manyeyes.controller.autoscaling.demand import Demand, PoolLoad
from manyeyes.controller.autoscaling.policy import MEMORY_S, DecisionReason, ReplicaChange, ScalingDecision

MEAN_S = 60.0
"""In-flight counts are averaged over this time before fewer engines are considered: requests come in bunches, and the largest
count of ten minutes would say more of chance than of load."""
TIMES_SETTLE_S = 75.0
"""For so long after the number of serving engines changed, times still tell of before: they are of the last minute."""
PART_OF_BATCH = 5
"""Without any target, an engine should have a fifth of the requests in flight that it runs at once: the GPU is then used well, and there is room for what comes while another engine starts (docs/scaling.md has the simulated day)."""


def with_default_target(pool: Pool, engines: tuple[Engine, ...]) -> Scaling | None:
    """The pool's policy, its default target filled in from what its smallest engine runs at once. None: it is not scaled."""
    scaling = pool.scaling
    if scaling is None or not scaling.target.is_unset:
        return scaling
    batch = min((max_num_seqs(pool, engine) for engine in engines if engine.pool == pool.name), default=1)
    return scaling.model_copy(update={"target": Target(in_flight=max(1, batch // PART_OF_BATCH))})


class PoolAutoscaler:
    """Takes looks, gives decisions. `fixed` is a count set by hand; it is in force until it is None again."""

    def __init__(self, scaling: Scaling | None, wanted: int, fixed: int | None = None) -> None:
        self.scaling = scaling
        self.wanted = wanted
        self.fixed = fixed
        self.changes: deque[ReplicaChange] = deque(maxlen=500)
        self._loads: deque[PoolLoad] = deque()
        self._needs: deque[Demand] = deque()
        self._serving: tuple[int, float] = (-1, 0.0)
        """How many serve, and since when."""

    def see(self, load: PoolLoad) -> None:
        """One look, later than all before."""
        if load.serving != self._serving[0]:
            self._serving = (load.serving, load.at_s)
        self._loads.append(load)
        while load.at_s - self._loads[0].at_s > MEAN_S:
            self._loads.popleft()
        if self.scaling is None:
            return
        self._needs.append(self._need(self.scaling, load))
        oldest_s = load.at_s - max(self.scaling.up.window_s, policy.LONGEST * self.scaling.down.window_s) - MEAN_S
        while self._needs[0].at_s < oldest_s:
            self._needs.popleft()

    def decide(self, most: int, now_s: float, always: int = 0) -> ScalingDecision:
        """`most`: engines there are; `always`: engines that serve and cannot be stopped. What it wants from now on is remembered as `wanted`."""
        if self.fixed is not None:
            decision = policy.decide_manual(most, self.wanted, self.fixed, now_s)
        elif self.scaling is None:
            decision = ScalingDecision(
                now_s, self.wanted, DecisionReason.ENOUGH, "is not scaled: pools[].scaling is null"
            )
        else:
            decision = policy.decide(self.scaling, most, self.wanted, self._needs, self.changes, now_s, always)
        if decision.wanted != self.wanted:
            self.changes.append(ReplicaChange(now_s, self.wanted, decision.wanted))
            self.wanted = decision.wanted
        while self.changes and now_s - self.changes[0].at_s > 2 * MEMORY_S:
            self.changes.popleft()
        return decision

    def adopt(self, serving: int, now_s: float) -> None:
        """More engines serve than are wanted: somebody started them, or one that was broken is back.

        They stay, as if they had been added for load, and go again when they are not needed. A count set by hand stays in force.
        """
        if self.fixed is None and self.scaling is not None and serving > self.wanted:
            self.changes.append(ReplicaChange(now_s, self.wanted, serving))
            self.wanted = serving

    def _need(self, scaling: Scaling, load: PoolLoad) -> Demand:
        settled = load.at_s - self._serving[1] >= TIMES_SETTLE_S
        now = demand.compute_demand(load, scaling.target, scaling.tolerance, settled)
        if load.in_flight is None or now.most is None:
            return now
        counts = [one.in_flight for one in self._loads if one.in_flight is not None]
        mean = PoolLoad(load.at_s, load.serving, sum(counts) / len(counts), load.queue_s, load.p95_s, load.gpu)
        return Demand(
            now.at_s, now.least, demand.compute_demand(mean, scaling.target, scaling.tolerance, settled).most, now.why
        )
