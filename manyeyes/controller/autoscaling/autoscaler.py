"""The autoscaler's loop: it measures each pool, decides its number of engines, and starts or stops engines."""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx

from manyeyes.config.placement import PlacedCluster
from manyeyes.controller import metrics
from manyeyes.controller.autoscaling import reconcile, signals
from manyeyes.controller.autoscaling.actuators import ContainerActuator, HungRestarts
from manyeyes.controller.autoscaling.demand import PoolLoad
from manyeyes.controller.autoscaling.lifecycle import SETTLE_S, EngineLifecycle
from manyeyes.controller.autoscaling.policy import DecisionReason, PoolAutoscaler, ScalingDecision, with_default_target
from manyeyes.controller.autoscaling.reconcile import LifecycleStage, MovePlan
from manyeyes.controller.autoscaling.signals import PoolSignals
from manyeyes.controller.autoscaling.store import LoadRecorder
from manyeyes.controller.config_sync.effective_config import EffectiveConfig
from manyeyes.controller.membership.fleet import Fleet
from manyeyes.controller.state_store import StateStore
from manyeyes.controller.supervision import keep_running, record_failure
from manyeyes.controller.telemetry.access_log_receiver import AccessLog

LOAD_KINDS = ("in_flight", "serving", "queue_time_s", "p95_s", "gpu")


class Autoscaler:
    """Scales all pools. `containers` is None without Docker."""

    def __init__(
        self,
        fleet: Fleet,
        requests: AccessLog,
        state_store: StateStore,
        client: httpx.AsyncClient,
        containers: ContainerActuator | None,
        record: LoadRecorder | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.fleet = fleet
        self.requests = requests
        self.client = client
        self.record = record
        self.clock = clock
        self.pools: dict[str, PoolAutoscaler] = {}
        self.lifecycle = EngineLifecycle(fleet, state_store, client, containers, self.pools, clock)
        self.decisions: dict[str, ScalingDecision] = {}
        self.loads: dict[str, PoolLoad] = {}
        self.history: dict[str, deque[ScalingDecision]] = {}
        """Decisions that changed the count, by pool."""
        self._signals: dict[str, PoolSignals] = {}
        self.apply(fleet.cluster)

    async def run(self) -> None:
        while True:
            await asyncio.sleep(self.fleet.cluster.controller.scaling_interval_s)
            await self.tick()

    def can_move(self, pool: str) -> bool:
        """Whether an actuator can start and stop the pool's engines. Raises KeyError for an unknown pool."""
        return self.lifecycle.actuator(self.fleet.cluster.pool(pool)) is not None

    async def fix(self, pool: str, count: int | None) -> bool:
        """Sets the count by hand; None removes it. Raises KeyError for an unknown pool.

        Returns False, and changes nothing, when the count cannot be persisted.
        """
        scaling, fixed = self.pools[pool], self.lifecycle.memory.fixed
        before = dict(fixed)
        if count is None:
            fixed.pop(pool, None)
        else:
            fixed[pool] = count
        if not await asyncio.wrap_future(self.lifecycle.save()):
            self.lifecycle.memory.fixed = before
            return False
        scaling.fixed = count
        return True

    async def tick(self) -> None:
        """One pass: measures all pools, makes one decision for each, and carries it out."""
        now_s = self.clock()
        await self.lifecycle.refresh_stopped()
        self.lifecycle.follow_members(now_s)
        self.lifecycle.resolve_shared_gpus()
        url = self.fleet.cluster.controller.gpu_metrics_url
        gpus = await signals.fetch_gpu_utilization(self.client, url) if url else {}
        for name, scaling in list(self.pools.items()):
            try:
                self._decide(name, scaling, now_s, gpus)
            except Exception:
                # This is a bug. The other pools are still scaled.
                record_failure("scaling", pool=name)
        if self.record:
            await asyncio.to_thread(self.record.add, list(self.loads.items()))

    def engines(self, pool: str, now_s: float | None = None) -> list[reconcile.ScaledEngine]:
        """The pool's engines with their lifecycle stages, in file order."""
        now_s = self.clock() if now_s is None else now_s
        return [self.lifecycle.scaled_engine(member, now_s) for member in self.fleet.members_of(pool)]

    def apply(self, cluster: PlacedCluster) -> None:
        engines = cluster.engines
        for pool in cluster.pools:
            policy = with_default_target(pool, engines)
            if pool.name not in self.pools:
                fixed = self.lifecycle.memory.fixed.get(pool.name)
                self.pools[pool.name] = PoolAutoscaler(policy, self.lifecycle.memory.desired.get(pool.name, 0), fixed)
                self._signals[pool.name] = PoolSignals(pool.name)
                self.history[pool.name] = deque(maxlen=200)
                _initialize_series(pool.name)
            self.pools[pool.name].scaling = policy
        for name in self.pools.keys() - {pool.name for pool in cluster.pools}:
            for by_pool in (
                self.pools,
                self.decisions,
                self.loads,
                self.history,
                self.lifecycle.problems,
                self._signals,
            ):
                by_pool.pop(name, None)
        self.lifecycle.pair_shared_gpus()

    def _decide(self, name: str, scaling: PoolAutoscaler, now_s: float, gpus: dict[str, float]) -> None:
        members = {member.engine.name: member for member in self.fleet.members_of(name)}
        if not members:
            return
        engines = self.engines(name, now_s)
        serving = [members[engine.name] for engine in engines if engine.stage is LifecycleStage.SERVING]
        draining = [members[engine.name] for engine in engines if engine.stage is LifecycleStage.DRAINING]
        load = self._signals[name].collect(now_s, serving, [*serving, *draining], self.requests, gpus)
        self.loads[name] = load
        _record_load(name, load)
        started = sum(engine.stage is not LifecycleStage.STOPPED for engine in engines)
        metrics.SCALING_STARTED.labels(name).set(started)
        scaling.see(load)
        if not self.lifecycle.is_scaled(name) or not any(member.health.settled for member in members.values()):
            return
        if not scaling.desired:
            scaling.desired = max(1, started)
        before = scaling.desired
        scaling.adopt(len(serving), now_s)
        if scaling.desired != before:
            self._emit_change(
                name,
                before,
                f"has {scaling.desired} engines up, more than the desired {before}; they stay while they are needed",
            )
            before = scaling.desired
        decision = scaling.decide(
            len(engines), now_s, sum(engine.fixed for engine in engines if engine.stage is LifecycleStage.SERVING)
        )
        self.decisions[name] = decision
        metrics.SCALING_DESIRED.labels(name).set(decision.desired)
        metrics.SCALING_FIXED.labels(name).set(scaling.fixed is not None)
        metrics.SCALING_DECIDED.labels(name).set(now_s)
        _record_reason(name, decision.reason)
        if decision.desired != before:
            self.history[name].append(decision)
            self._emit_change(name, before, decision.sentence)
        if self.lifecycle.memory.desired.get(name) != scaling.desired:
            self.lifecycle.memory.desired[name] = scaling.desired
            self.lifecycle.save()
        todo = reconcile.plan_moves(
            engines, decision.desired, now_s, self.lifecycle.policy(name).scale_down.drain_s, SETTLE_S
        )
        self.lifecycle.missing[name] = todo.missing
        self._carry_out(name, todo, decision)

    def _emit_change(self, pool: str, before: int, sentence: str) -> None:
        metrics.SCALING_CHANGES.labels(pool, "up" if self.pools[pool].desired > before else "down").inc()
        self.fleet.emit_event(f"{pool} {sentence}", pool=pool)

    def _carry_out(self, pool: str, todo: MovePlan, decision: ScalingDecision) -> None:
        for name in todo.undrain:
            self.lifecycle.undrain(name)
            self.fleet.undrain(name, f"{pool} {decision.sentence}")
        for name in todo.start:
            self.lifecycle.start(name)
        for name in todo.drain:
            self.lifecycle.drain(name, f"{pool} {decision.sentence}")
        for name in todo.rest:
            self.lifecycle.stop(name)


def _initialize_series(pool: str) -> None:
    """Creates the pool's counters at 0, so that no series is missing."""
    for direction in ("up", "down"):
        metrics.SCALING_CHANGES.labels(pool, direction)
    metrics.SCALING_FAILURES.labels(pool)


def _record_load(pool: str, load: PoolLoad) -> None:
    for kind in LOAD_KINDS:
        value = getattr(load, kind)
        if value is None:
            metrics.SCALING_LOAD.remove_by_labels({"pool": pool, "kind": kind})
        else:
            metrics.SCALING_LOAD.labels(pool, kind).set(value)


def _record_reason(pool: str, current: DecisionReason) -> None:
    for reason in DecisionReason:
        metrics.SCALING_REASON.labels(pool, reason.value).set(reason is current)


@contextlib.asynccontextmanager
async def run_autoscaler(
    fleet: Fleet,
    effective: EffectiveConfig,
    requests: AccessLog,
    state_store: StateStore,
    containers_url: str,
    records: Path,
) -> AsyncIterator[Autoscaler]:
    """Runs the autoscaler while the context lasts.

    Enter it before the engines are monitored, so that a sleeping engine is not taken for one that is up.
    """
    cluster = effective.cluster
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=50)
    async with httpx.AsyncClient(limits=limits, trust_env=False) as client:
        containers = None
        if cluster.controller.containers:
            containers = ContainerActuator(client, containers_url, cluster.name, cluster.shutdown.grace_s)
        record = LoadRecorder(records) if cluster.controller.record_load else None
        scaler = Autoscaler(fleet, requests, state_store, client, containers, record)
        effective.listen(scaler.apply)
        loops = [asyncio.create_task(keep_running("scaling", scaler.run))]
        if containers:
            restarts = HungRestarts(fleet, containers, scaler.lifecycle.is_moving)
            loops.append(asyncio.create_task(keep_running("hung_restarts", restarts.run)))
        try:
            yield scaler
        finally:
            for loop in loops:
                loop.cancel()
            await asyncio.gather(*loops, return_exceptions=True)
            scaler.lifecycle.close()
