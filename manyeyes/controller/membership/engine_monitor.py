"""Monitors one engine: probes it, warms it up, sends canary requests, and passes the results to state_machine.py.

Each engine and each remote endpoint has its own task.
"""

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

from manyeyes.config.fields import LookupFailed, resolve_host
from manyeyes.config.gateway import Controller
from manyeyes.config.placement import PlacedCluster
from manyeyes.config.pools import Remote
from manyeyes.controller import metrics
from manyeyes.controller.health import state_machine
from manyeyes.controller.health.probe import Probe
from manyeyes.controller.health.states import CanaryResult, EngineState, Observation, ProbeResult, Transition
from manyeyes.controller.membership import pool_renames
from manyeyes.controller.membership.membership_store import FleetMember
from manyeyes.controller.supervision import record_failure
from manyeyes.engine.vllm_flags import served_names


@dataclass
class RemoteEndpoint:
    """The endpoint of a remote pool, and the result of its last probe."""

    pool: str
    remote: Remote
    reachable: bool | None = None
    """None before the first probe."""
    why: str = ""
    """Why it is not reachable."""
    misses: int = 0
    since: datetime = field(default_factory=lambda: datetime.now(UTC))


async def probe_remote(remote: Remote, timeout_s: float) -> str:
    """Connects to the endpoint. Returns an empty string on success, else the problem."""
    try:
        async with asyncio.timeout(timeout_s):
            addresses = await resolve_host(remote.host, remote.port)
            _, writer = await asyncio.open_connection(str(addresses[0]), remote.port)
            writer.close()
    except LookupFailed as error:
        return str(error)
    except TimeoutError:
        return f"{remote.host}:{remote.port} does not respond within {timeout_s:g} s"
    except (OSError, OverflowError):
        return f"nothing listens at {remote.host}:{remote.port}"
    return ""


def record_remote_probe(endpoint: RemoteEndpoint, why: str, rules: Controller) -> str:
    """Records the result of one probe.

    Returns a sentence when the endpoint's reachability changes, else an empty string.
    """
    endpoint.misses = endpoint.misses + 1 if why else 0
    if why and endpoint.reachable and endpoint.misses < rules.fall:
        return ""
    before, endpoint.reachable, endpoint.why = endpoint.reachable, not why, why
    metrics.REMOTE_REACHABLE.labels(endpoint.pool).set(endpoint.reachable)
    if before is endpoint.reachable:
        return ""
    endpoint.since = datetime.now(UTC)
    return f"is unreachable: {why}" if why else "is reachable"


async def monitor_remote(
    endpoint: RemoteEndpoint, rules: Callable[[], Controller], emit: Callable[[str], None]
) -> None:
    while True:
        why = await probe_remote(endpoint.remote, rules().connect_timeout_s + 3)
        if sentence := record_remote_probe(endpoint, why, rules()):
            emit(sentence)
        is_suspicious = bool(why) and endpoint.misses < rules().fall
        await asyncio.sleep(1 if is_suspicious else rules().remote_interval_s)


SOON_S = 0.5
"""Pause between probes of an engine that is suspect or not up, so that a started engine is found within a second."""
SOON_FOR_S = 60.0
"""An engine that is down for longer is probed at the normal interval."""
LEAST_S = 0.1
"""Minimum pause between two probes, which limits the cost of an engine that closes every connection."""
TOGETHER_S = 0.1
"""Probes that are due within this time are sent together."""
MAX_WAIT_S = 1.0
"""After this time a probe counts as silent; its response is still awaited."""
CANARY_PAUSE_S = 1.0
VERIFICATION_PAUSE_S = 5.0
"""Pause between canary requests to an engine that is up, so that a client's faulty requests cost it little."""
CPU_PATIENCE = 3.0
"""Factor for timeouts: one step of an engine on CPU takes seconds, and its /health shares the cores."""


class MonitoredFleet(Protocol):
    """The parts of the fleet that a monitor uses."""

    cluster: PlacedCluster

    def apply_transition(self, member: FleetMember, step: Transition) -> None: ...

    def set_address(self, member: FleetMember, address: str) -> None: ...

    def record_accepted_names(self, member: FleetMember, names: frozenset[str]) -> None: ...

    def another_serves(self, member: FleetMember) -> bool: ...


class EngineMonitor:
    def __init__(self, fleet: MonitoredFleet, member: FleetMember) -> None:
        self.fleet = fleet
        self.member = member
        self.probe = Probe(member.engine, self.wake, member.address)
        self._woken: asyncio.Future[None] | None = None
        self._wake_requested = False
        self._counters_at_s = 0.0
        self._stands_still = False
        self._canary: asyncio.Task[tuple[CanaryResult, str]] | None = None
        self._canary_at_s = float("-inf")
        self._names_requested = False

    def wake(self) -> None:
        """Triggers a probe now, because the connection was lost or a request failed."""
        self._wake_requested = True
        if self._woken is not None and not self._woken.done():
            self._woken.set_result(None)

    async def run(self) -> None:
        try:
            while True:
                self._wake_requested = False
                rules = self.fleet.cluster.controller
                began_s = time.monotonic()
                try:
                    await self._probe_once(rules)
                    if (
                        self.member.accepts is None
                        and not self._names_requested
                        and self.member.health.state is EngineState.UP
                    ):
                        await self._learn_accepted(rules)
                    if self.member.health.state is EngineState.WARMING:
                        await self._warm_up(rules)
                except Exception:
                    # This is a bug. The other engines, and the next probe of this engine, still count.
                    record_failure("probe", engine=self.member.engine.name)
                await self._pause(self._pause_s(rules))
                await self._pause(began_s + LEAST_S - time.monotonic(), heed=False)
        finally:
            self.probe.close()
            if self._canary is not None:
                self._canary.cancel()

    async def _probe_once(self, rules: Controller) -> None:
        member, known = self.member, self.member.health
        now_s = time.monotonic()
        is_suspicious = known.state is not EngineState.UP or known.bad > 0 or self._stands_still or member.failures > 0
        # For a drained engine, an operator or the autoscaler waits until its requests have finished.
        with_counters = is_suspicious or known.drained or now_s >= self._counters_at_s
        seen = await self.probe.run(rules, min(rules.probe_interval_s, MAX_WAIT_S), with_counters)
        if self.probe.address != member.address and self.probe.address is not None:
            self.fleet.set_address(member, self.probe.address)
        if seen.load is not None:
            member.load = seen.load
            self._counters_at_s = now_s + rules.load_interval_s * random.uniform(0.9, 1.0)
            metrics.record_load(member.engine, seen.load)
        elif with_counters and seen.result is ProbeResult.HEALTHY:
            self._counters_at_s = now_s + rules.load_interval_s
        if seen.result in (ProbeResult.GONE, ProbeResult.DEAD):
            member.load = None
            metrics.remove_load(member.engine)
        metrics.count_probe(member.engine, seen.result, seen.waited_s)
        canary, canary_problem = self._take_canary()
        if canary is CanaryResult.PASSED:
            member.failures, member.unverified = 0, False
        load = member.load
        observation = Observation(
            at_s=time.monotonic(),
            result=seen.result,
            why=seen.why,
            waited_s=seen.waited_s,
            progressed=seen.progressed,
            busy=load is not None and load.running + load.waiting > 0,
            idle=load is None or load.in_flight == 0,
            succeeded_at_s=member.succeeded_at_s,
            failures=member.failures,
            unverified=member.unverified,
            asleep=seen.asleep,
            canary=canary,
            canary_problem=canary_problem,
            others_serve=self.fleet.another_serves(member),
            patience=CPU_PATIENCE if member.engine.flavour == "cpu" else 1.0,
        )
        if seen.progressed is not None:
            self._stands_still = observation.busy and not seen.progressed
        # Not `known`: the engine may have been drained while the response was awaited.
        self.fleet.apply_transition(member, state_machine.observe(member.health, observation, rules))
        self._maybe_send_canary(observation, rules)

    def _maybe_send_canary(self, observation: Observation, rules: Controller) -> None:
        pause_s = VERIFICATION_PAUSE_S if self.member.health.state is EngineState.UP else CANARY_PAUSE_S
        is_due = observation.at_s >= self._canary_at_s + pause_s
        if self._canary is None and is_due and state_machine.needs_canary(self.member.health, observation, rules):
            self._canary_at_s = observation.at_s
            pool = self.fleet.cluster.pool_of(self.member.engine)
            request = self.probe.send_canary(self._name(), pool.media.images_per_prompt > 0, rules.canary_timeout_s)
            self._canary = asyncio.create_task(request)
            self._canary.add_done_callback(lambda _: self.wake())

    def _take_canary(self) -> tuple[CanaryResult | None, str]:
        if self._canary is None or not self._canary.done():
            return None, ""
        done, self._canary = self._canary, None
        canary, canary_problem = done.result()
        metrics.CANARIES.labels(self.member.engine.name, self.member.engine.pool, canary.value).inc()
        return canary, canary_problem

    async def _warm_up(self, rules: Controller) -> None:
        pool = self.fleet.cluster.pool_of(self.member.engine)
        await self._learn_accepted(rules)
        canary, canary_problem = await self.probe.send_canary(
            self._name(), pool.media.images_per_prompt > 0, rules.warm_up_timeout_s
        )
        error = "" if canary is CanaryResult.PASSED else canary_problem
        if not error:
            self.member.failures, self.member.unverified = 0, False
        self.fleet.apply_transition(
            self.member, state_machine.finish_warm_up(self.member.health, time.monotonic(), error)
        )

    async def _learn_accepted(self, rules: Controller) -> None:
        self._names_requested = True
        if names := await self.probe.names(rules.probe_timeout_s):
            self.fleet.record_accepted_names(self.member, names)

    def _name(self) -> str:
        """A `model` that the engine accepts: its pool's name, unless the pool was renamed after the engine's start."""
        cluster, pool = self.fleet.cluster, self.member.engine.pool
        accepts = self.member.accepts
        return pool_renames.accepted_name(served_names(cluster, cluster.pool(pool)), accepts) if accepts else pool

    def _pause_s(self, rules: Controller) -> float:
        known = self.member.health
        is_calm = known.state in (EngineState.UP, EngineState.SLEEPING) and not known.bad and not known.drained
        is_long_down = known.state in (EngineState.STARTING, EngineState.DOWN) and self.member.since_s > SOON_FOR_S
        if is_calm or is_long_down:
            # Probes are spread over the interval but sent in small groups, because each wake-up of the process costs as
            # much as a probe.
            calm_s = rules.probe_interval_s * random.uniform(0.9, 1.0)
            now_s = asyncio.get_running_loop().time()
            return max(LEAST_S, (now_s + calm_s) // TOGETHER_S * TOGETHER_S - now_s)
        return min(rules.probe_interval_s, SOON_S)

    async def _pause(self, seconds: float, heed: bool = True) -> None:
        """Sleeps. With `heed`, `wake()` ends the pause early."""
        if seconds <= 0 or (heed and self._wake_requested):
            return
        loop = asyncio.get_running_loop()
        waiter = loop.create_future()
        if heed:
            self._woken = waiter
        alarm = loop.call_later(seconds, _end, waiter)
        try:
            await waiter
        finally:
            alarm.cancel()
            self._woken = None


def _end(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
