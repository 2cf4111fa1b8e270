"""Tracks the lifecycle stage of each engine, and starts and stops engines.

To stop an engine, the controller drains it, waits until it is idle or the drain time is over, and then stops it or puts
it to sleep. A started engine is probed and warmed up like any other before it gets requests. A failing actuator causes
an event and a pause; it never affects serving.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from concurrent.futures import Future

import httpx

from manyeyes.config.pools import Pool
from manyeyes.config.scaling import Scaling
from manyeyes.controller import metrics
from manyeyes.controller.autoscaling import reconcile, store
from manyeyes.controller.autoscaling.actuators import Actuator, ActuatorError, ContainerActuator, SleepActuator
from manyeyes.controller.autoscaling.policy import PoolAutoscaler
from manyeyes.controller.autoscaling.reconcile import ActuatorCall, EngineFacts, LifecycleStage, lifecycle_stage
from manyeyes.controller.autoscaling.store import AutoscalerState
from manyeyes.controller.health import state_machine, states
from manyeyes.controller.membership.fleet import Fleet
from manyeyes.controller.membership.membership_store import FleetMember
from manyeyes.controller.state_store import StateStore
from manyeyes.controller.supervision import record_failure

SETTLE_S = 3.0
"""After this time the gateway has queried DNS again and sends no more requests to a drained engine."""
FAILED_PAUSE_S = 60.0
"""Pause before an engine that could not be started or stopped is tried again."""
MANUAL = Scaling()
"""Settings of a pool without a policy whose count is set by hand, such as its drain time."""


class EngineLifecycle:
    """The lifecycle of all engines. `pools` has the policies by pool; `containers` is None without Docker."""

    def __init__(
        self,
        fleet: Fleet,
        state_store: StateStore,
        client: httpx.AsyncClient,
        containers: ContainerActuator | None,
        pools: dict[str, PoolAutoscaler],
        clock: Callable[[], float],
    ) -> None:
        self.fleet = fleet
        self.state_store = state_store
        self.client = client
        self.containers = containers
        self.pools = pools
        self.clock = clock
        self.memory: AutoscalerState = store.load_state(state_store)
        self.problems: dict[str, str] = {}
        """By pool: why its engines cannot be started or stopped; no entry while they can."""
        self.missing: dict[str, int] = {}
        """By pool: the number of desired engines that cannot be started."""
        self._moving: dict[str, tuple[ActuatorCall, asyncio.Task[None]]] = {}
        self._stopped: dict[str, bool] = {}
        self._moves: Counter[str] = Counter()
        """Calls of actuators that ended, by engine."""
        self._out_since_s: dict[str, float] = {}
        self._drained_since_s: dict[str, float] = {}
        self._started: set[str] = set()
        self._failed_at_s: dict[str, float] = {}
        self._partners: dict[str, str] = {}
        """By engine: the engine that shares its GPU. Each pair is stored in both directions."""

    def pair_shared_gpus(self) -> None:
        """Updates the pairs of engines that share a GPU. Call it after the fleet's engines change."""
        self._partners = {}
        for first, second in self._pairs():
            self._partners.setdefault(first, second)
            self._partners.setdefault(second, first)

    def close(self) -> None:
        for _, task in self._moving.values():
            task.cancel()

    def is_moving(self, name: str) -> bool:
        """Whether a call that starts, stops, wakes the engine or puts it to sleep is in progress."""
        return name in self._moving

    def stage_of(self, name: str, now_s: float | None = None) -> LifecycleStage:
        """The engine's lifecycle stage. Raises KeyError for an unknown engine."""
        now_s = self.clock() if now_s is None else now_s
        member = self.fleet.members[name]
        policy = self.policy(member.engine.pool)
        facts = EngineFacts(
            state=member.health.state,
            serves=member.health.serves,
            drained=member.health.drained,
            draining=name in self.memory.draining,
            at_rest=self._stopped.get(name, False),
            moving=self._moving[name][0] if name in self._moving else None,
            out_for_s=now_s - self._out_since_s.get(name, now_s),
            started=name in self._started,
        )
        if facts.drained and name in self.memory.stopped and facts.at_rest:
            return LifecycleStage.STOPPED
        return lifecycle_stage(facts, policy.ready_s, policy.scale_up.window_s)

    async def refresh_stopped(self) -> None:
        """Updates `_stopped`. Engines that the controller cannot start or stop have no entry."""
        known: dict[str, bool] = {}
        ended = self._moves.copy()
        for pool in self.fleet.cluster.pools:
            engines = [member.engine for member in self.fleet.members_of(pool.name)]
            if not engines or not self.is_scaled(pool.name):
                continue
            actuator = self.actuator(pool)
            if actuator is None:
                self._report_problem(
                    pool.name, "controller.containers is false, so its engines cannot be started or stopped"
                )
                continue
            try:
                stopped = await actuator.find_stopped(engines)
            except ActuatorError as error:
                self._report_problem(pool.name, str(error))
                continue
            if stopped:
                self.problems.pop(pool.name, None)
            else:
                self._report_problem(pool.name, "the controller cannot start, stop or put to sleep any of its engines")
            known |= stopped
        # An engine whose stop ended during the request may have been listed as running: the listing is older than its stop.
        known |= {
            name: self._stopped[name] for name in known if self._moves[name] != ended[name] and name in self._stopped
        }
        self._stopped = known

    def _report_problem(self, pool: str, why: str) -> None:
        if self.problems.get(pool) != why:
            self.problems[pool] = why
            self.fleet.emit_event(f"{pool} cannot be scaled: {why}", pool=pool)

    def follow_members(self, now_s: float) -> None:
        """Records changes since the last pass that the autoscaler did not make, such as a start by an operator."""
        controlled = self.memory.draining | self.memory.stopped
        for name, member in self.fleet.members.items():
            if member.health.serves:
                self._out_since_s.pop(name, None)
                self._started.discard(name)
            else:
                self._out_since_s.setdefault(name, now_s)
            if name not in controlled or name in self._moving:
                continue
            if name in self.memory.draining and not member.health.drained:
                self.undrain(name)  # an operator resumed it
            elif name in self.memory.stopped and self._stopped.get(name) is False:
                self.undrain(name)
                self._out_since_s[name] = now_s
                self._started.add(name)
                self._take(name, state_machine.expect)
                self.fleet.undrain(name, "it was started outside the autoscaler")
            elif name in self.memory.stopped and self._stopped.get(name):
                self._take(name, state_machine.rest)
        for name in controlled - self.fleet.members.keys():
            self.undrain(name)

    def resolve_shared_gpus(self) -> None:
        """Drains one of two engines that share a GPU when both are started (by hand, or by Docker after a crash)."""
        for name, partner in self._pairs():
            if self._is_stopped(name) or self._is_stopped(partner) or name in self._moving or partner in self._moving:
                continue
            loser = partner if self.stage_of(name) in (LifecycleStage.SERVING, LifecycleStage.DRAINING) else name
            if self.stage_of(loser) is LifecycleStage.DRAINING or self._stopped.get(loser) is None:
                continue
            winner = name if loser == partner else partner
            self.drain(loser, f"{winner} uses its GPU")
            if not self.fleet.members[loser].health.serves:
                self.stop(loser)

    def _pairs(self) -> list[tuple[str, str]]:
        members = self.fleet.members
        return [
            (name, member.engine.time_shares_with)
            for name, member in members.items()
            if member.engine.time_shares_with is not None and member.engine.time_shares_with in members
        ]

    def _is_stopped(self, name: str) -> bool:
        """Whether the engine uses no GPU.

        An engine that the controller cannot control uses its GPU until its port is closed.
        """
        if name in self._moving:
            return False
        if name in self._stopped:
            return self._stopped[name]
        return self.fleet.members[name].health.last is states.ProbeResult.GONE

    def scaled_engine(self, member: FleetMember, now_s: float) -> reconcile.ScaledEngine:
        name = member.engine.name
        stage = self.stage_of(name, now_s)
        partner = self._partners.get(name)
        failed_s = now_s - self._failed_at_s.get(name, float("-inf"))
        cannot = name in self._moving or name not in self._stopped or failed_s < FAILED_PAUSE_S
        return reconcile.ScaledEngine(
            name=name,
            stage=stage,
            in_flight=self._in_flight(member, stage, now_s),
            since_s=self._drained_since_s.get(name, 0.0) if stage is LifecycleStage.DRAINING else now_s,
            blocked=cannot or (partner is not None and not self._is_stopped(partner)),
            waited_for=partner is not None and self.missing.get(self.fleet.members[partner].engine.pool, 0) > 0,
            fixed=name not in self._stopped,
        )

    def _in_flight(self, member: FleetMember, stage: LifecycleStage, now_s: float) -> int | None:
        """Requests in flight; None when unknown.

        For a draining engine, only counters read after the gateway stopped sending requests to it are valid. An engine
        that does not serve has none.
        """
        if stage is LifecycleStage.DRAINING:
            if not member.health.serves:
                return 0
            if member.load is None:
                return None
            counted_s = time.monotonic() - member.load.at_s
            if counted_s > now_s - self._drained_since_s.get(member.engine.name, 0.0) - SETTLE_S:
                return None
        return None if member.load is None else member.load.in_flight

    def actuator(self, pool: Pool) -> Actuator | None:
        if self.policy(pool.name).actuator == "sleep":
            return SleepActuator(self.client, {pool.name: self.policy(pool.name).sleep_level})
        return self.containers

    def policy(self, pool: str) -> Scaling:
        return self.pools[pool].scaling or MANUAL

    def is_scaled(self, pool: str) -> bool:
        scaling = self.pools[pool]
        return scaling.scaling is not None or scaling.fixed is not None

    def drain(self, name: str, reason: str) -> None:
        self.memory.draining.add(name)
        self.save()  # before the drain: after a restart, an unknown drain would look like an operator's
        self._drained_since_s[name] = self.clock()
        self.fleet.drain(name, reason)
        self.fleet.probe_now(name)

    def start(self, name: str) -> None:
        member = self.fleet.members[name]

        async def start(actuator: Actuator) -> None:
            await actuator.start(member.engine)
            self.undrain(name)
            self._stopped[name] = False
            self._out_since_s[name] = self.clock()
            self._started.add(name)
            self._take(name, state_machine.expect)
            self.fleet.undrain(name, "the autoscaler started it")
            self.fleet.probe_now(name)

        self._move(name, ActuatorCall.STARTING, start)

    def stop(self, name: str) -> None:
        member = self.fleet.members[name]

        async def rest(actuator: Actuator) -> None:
            await actuator.stop(member.engine)
            self.memory.draining.discard(name)
            self.memory.stopped.add(name)
            self.save()
            self._stopped[name] = True
            self._take(name, state_machine.rest)

        self._move(name, ActuatorCall.RESTING, rest)

    def _move(self, name: str, moving: ActuatorCall, call: Callable[[Actuator], Awaitable[None]]) -> None:
        """Calls the actuator in the background, with at most one call per engine at a time."""
        if name in self._moving:
            return
        pool = self.fleet.cluster.pool_of(self.fleet.members[name].engine)
        actuator = self.actuator(pool)
        if actuator is None:
            return
        self._moving[name] = (moving, asyncio.create_task(self._moved(name, pool.name, call(actuator))))

    async def _moved(self, name: str, pool: str, call: Awaitable[None]) -> None:
        try:
            await call
        except ActuatorError as error:
            self._failed_at_s[name] = self.clock()
            metrics.SCALING_FAILURES.labels(pool).inc()
            self.fleet.emit_event(f"{name} could not be started or stopped: {error}", engine=name, pool=pool)
        except Exception:
            self._failed_at_s[name] = self.clock()
            record_failure("scaling", engine=name)
        finally:
            self._moving.pop(name, None)
            self._moves[name] += 1

    def _take(self, name: str, change: Callable[[states.EngineHealth], states.Transition]) -> None:
        if member := self.fleet.members.get(name):
            self.fleet.apply_transition(member, change(member.health))

    def undrain(self, name: str) -> None:
        """Removes the engine from the autoscaler's drained and stopped engines."""
        self._drained_since_s.pop(name, None)
        if name in self.memory.draining | self.memory.stopped:
            self.memory.draining.discard(name)
            self.memory.stopped.discard(name)
            self.save()

    def save(self) -> Future[bool]:
        return self.state_store.write_later(store.DOCUMENT, self.memory.document())
