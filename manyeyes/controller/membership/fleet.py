"""Holds all engines and their states.

engine_monitor.py probes the engines and state_machine.py decides; this module applies the transitions and updates the
log, the metrics and the events.
"""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

import structlog

from manyeyes.config.engines import Engine, in_flight
from manyeyes.config.placement import PlacedCluster
from manyeyes.controller import metrics
from manyeyes.controller.health import state_machine, states
from manyeyes.controller.health.states import EngineState, Transition
from manyeyes.controller.membership import engine_monitor, pool_renames
from manyeyes.controller.membership.engine_monitor import EngineMonitor, RemoteEndpoint
from manyeyes.controller.membership.membership_store import FleetMember, MembershipStore, StoredMember
from manyeyes.controller.membership.pool_renames import PoolLineage
from manyeyes.controller.state_store import StateStore
from manyeyes.controller.supervision import keep_running

log = structlog.get_logger()
FLUSH_TIMEOUT_S = 5.0
KEEP_PAUSE_S = 1.0
"""Minimum pause between two writes of the members."""
RETIRED_FOR_S = 60.0
"""How long DNS still answers for a removed pool: nginx sends requests to it until it has loaded the new files."""


class Fleet:
    """The engines of the effective cluster, each monitored by its own task."""

    def __init__(self, cluster: PlacedCluster, state_store: StateStore | None = None) -> None:
        self.cluster = cluster
        self.members: dict[str, FleetMember] = {}
        self.remotes: dict[str, RemoteEndpoint] = {}
        """Endpoints of remote pools, by pool name."""
        self.events: deque[dict[str, str]] = deque(maxlen=500)
        self.version = 0
        """Increases whenever a DNS response may change."""
        self._memory = MembershipStore(state_store)
        self.lineage = self._memory.lineage()
        """The former names of the pools."""
        self.accepts_changed: Callable[[], None] = lambda: None
        """Called when the model names that an engine accepts have changed."""
        self._by_pool: dict[str, list[FleetMember]] = {}
        self._by_upstream: dict[str, str] = {}
        self._retired: dict[str, tuple[float, list[FleetMember]]] = {}
        """By upstream of a removed pool: until when DNS still answers its name, and its members."""
        self._drained = self._memory.drained()
        self._tasks: asyncio.TaskGroup | None = None
        self._watching: dict[str, asyncio.Task[None]] = {}
        self._watches: dict[str, EngineMonitor] = {}
        self._changed = asyncio.Event()
        self.apply(cluster)
        self._remember()

    @property
    def pool_names(self) -> set[str]:
        """The names of all pools, including those without engines."""
        return {pool.name for pool in self.cluster.pools}

    def apply(self, cluster: PlacedCluster) -> None:
        """Applies another cluster.

        Engines that are still the same process keep their state; all others start as unknown.
        """
        before, self.cluster = self.cluster, cluster
        earlier, self.lineage = self.lineage, pool_renames.next_lineage(self.lineage, cluster)
        self._retire(earlier)
        engines = {engine.name: engine for engine in cluster.engines}
        removed: dict[str, FleetMember] = {}
        known_as = Counter(self._process(member.engine, earlier) for member in self.members.values())
        for name, member in list(self.members.items()):
            if name not in engines or self._process(member.engine, earlier) != self._process(
                engines[name], self.lineage
            ):
                if known_as[process := self._process(member.engine, earlier)] == 1:
                    removed[process] = member
                self._forget(name)
        for name, engine in engines.items():
            max_in_flight = in_flight(cluster.pool_of(engine), engine)
            if name in self.members:
                self._rename(self.members[name], engine)
                self.members[name].in_flight = max_in_flight
            else:
                self._add(engine, max_in_flight, removed.pop(self._process(engine, self.lineage), None))
        self.members = {name: self.members[name] for name in engines}
        self._by_upstream = {upstream: pool for pool, upstream in self.lineage.upstreams.items()}
        if earlier != self.lineage:
            self._memory.save_lineage(self.lineage)
        self._by_pool = {pool.name: [] for pool in cluster.pools}
        for member in self.members.values():
            self._by_pool[member.engine.pool].append(member)
        self._apply_remotes()
        for pool in {pool.name for pool in before.pools} - self.pool_names:
            metrics.remove_pool(pool)
        for name in self._drained.keys() - engines.keys():
            del self._drained[name]
        self._change()

    def drain(self, name: str, reason: str) -> None:
        """Drains an engine. The drain survives restarts of the controller. Raises KeyError for an unknown engine."""
        member = self.members[name]
        if not member.health.drained:
            self._drained[name] = reason
            self._memory.save_drained(self._drained)
        self.apply_transition(member, state_machine.drain(member.health, reason))

    def undrain(self, name: str, reason: str) -> None:
        """Undrains an engine. Raises KeyError for an unknown engine."""
        member = self.members[name]
        if self._drained.pop(name, None) is not None:
            self._memory.save_drained(self._drained)
        self.apply_transition(member, state_machine.undrain(member.health, reason))

    async def flush_drains(self) -> None:
        """Waits until all drains are on disk. A disk that hangs is not waited for: the drain itself is effective."""
        await self._memory.flush(FLUSH_TIMEOUT_S)

    def members_of(self, pool: str) -> list[FleetMember]:
        return self._by_pool.get(pool, [])

    @property
    def accepted(self) -> Mapping[str, frozenset[str]]:
        """By engine name: every value of `model` that it accepts; no entry for engines that have not listed them."""
        return {name: member.accepts for name, member in self.members.items() if member.accepts}

    def serving_upstream(self, upstream: str) -> tuple[str, list[FleetMember] | None] | None:
        """The pool behind an nginx upstream and its members that get new requests; None when there is no such pool."""
        if pool := self._by_upstream.get(upstream):
            return pool, self.serving(pool)
        if upstream in self._retired:
            until_s, members = self._retired[upstream]
            return (upstream, members) if time.monotonic() < until_s else None
        return (upstream, self.serving(upstream)) if upstream in self.pool_names else None

    def serving(self, pool: str) -> list[FleetMember] | None:
        """The members of a pool that get new requests; None while their states are unknown."""
        known = {member.engine.name: member.health for member in self.members_of(pool)}
        names = state_machine.eligible_members(known)
        return None if names is None else [self.members[name] for name in names if self.members[name].address]

    def another_serves(self, member: FleetMember) -> bool:
        """Whether another engine of the same pool serves."""
        return any(
            peer is not member and peer.health.serves and not peer.health.drained
            for peer in self.members_of(member.engine.pool)
        )

    def probe_now(self, name: str) -> None:
        """Probes an engine now. Unknown names are ignored."""
        if watch := self._watches.get(name):
            watch.wake()

    def request_succeeded(self, name: str, began_at_s: float) -> None:
        """Records from the gateway's log that a successful answer of this engine began at `began_at_s`."""
        if member := self.members.get(name):
            member.succeeded_at_s = max(began_at_s, member.succeeded_at_s or began_at_s)
            member.failures = 0

    def request_failed(self, name: str) -> None:
        """Records from the gateway's log that a request failed on this engine, and probes it now."""
        if member := self.members.get(name):
            member.failures += 1
            self.probe_now(name)

    def request_unprocessable(self, name: str) -> None:
        """Records from the gateway's log that this engine answered 500 to a request at fault, and verifies it."""
        if (member := self.members.get(name)) and not member.unverified:
            member.unverified = True
            self.probe_now(name)

    async def watch(self) -> None:
        """Probes every engine until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                for name in self.members:
                    self._begin(name)
                for endpoint in self.remotes.values():
                    self._begin_remote(endpoint)
                await keep_running("members_memory", self._keep)
        finally:
            self._tasks = None

    def emit_event(self, sentence: str, **fields: str) -> None:
        """Adds one sentence to the log and to the events. `fields` are its engine, pool and state, if it has them."""
        member = self.members.get(fields.get("engine", ""))
        # The gateway's log identifies engines that did not respond only by address.
        address = f"{member.address}:{member.engine.port}" if member and member.address else None
        log.info("cluster_changed", sentence=sentence, **fields, address=address)
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        if not self.events or self.events[-1]["sentence"] != sentence:
            self.events.append({"at": at, **fields, "sentence": sentence})

    def apply_transition(self, member: FleetMember, step: Transition) -> None:
        """Applies a transition of a member and updates metrics and events."""
        before, member.health = member.health, step.engine
        engine, current = member.engine, step.engine.shown
        if _membership(before) != _membership(step.engine):
            self._change()
        if current is not before.shown:
            member.since = datetime.now(UTC)
            metrics.record_transition(engine, current)
        if step.sentence:
            member.reason = step.sentence
            self.emit_event(f"{engine.name} {step.sentence}", engine=engine.name, pool=engine.pool, state=current.value)

    def set_address(self, member: FleetMember, address: str) -> None:
        """Records the current address of a member."""
        member.address = address
        self._change()

    def record_accepted_names(self, member: FleetMember, names: frozenset[str]) -> None:
        """Records the model names that an engine accepts."""
        if member.accepts != names:
            member.accepts = names
            self._changed.set()
            self.accepts_changed()

    def _add(self, engine: Engine, max_in_flight: int, before: FleetMember | None = None) -> None:
        """Adds a member. `before` is the same process under its former name."""
        # An engine that is added at run time was not a member of nginx before, so its state counts as known.
        known = before.health if before else states.EngineHealth(settled=self._tasks is not None)
        if before and (reason := self._drained.pop(before.engine.name, None)):
            self._drained[engine.name] = reason
            self._memory.save_drained(self._drained)
        if (reason := self._drained.get(engine.name)) and not known.drained:
            known = state_machine.drain(known, reason).engine
        member = FleetMember(engine, max_in_flight, known)
        if before:
            member.address, member.since, member.load = before.address, before.since, before.load
            member.succeeded_at_s, member.reason, member.accepts = before.succeeded_at_s, before.reason, before.accepts
        self.members[engine.name] = member
        metrics.record_state(engine, known.shown)
        self._begin(engine.name)

    def _rename(self, member: FleetMember, engine: Engine) -> None:
        """Updates a member to its current configuration, perhaps in a renamed pool."""
        before, member.engine = member.engine, engine
        if before.pool != engine.pool:
            metrics.remove_engine(before)
            metrics.record_state(engine, member.health.shown)

    def _retire(self, earlier: PoolLineage) -> None:
        now_s = time.monotonic()
        self._retired = {name: entry for name, entry in self._retired.items() if now_s < entry[0]}
        for pool, upstream in earlier.upstreams.items():
            if upstream not in self.lineage.upstreams.values() and pool in self._by_pool:
                self._retired[upstream] = (now_s + RETIRED_FOR_S, self.serving(pool) or [])

    def _process(self, engine: Engine, lineage: PoolLineage) -> str:
        """A key that is equal for the same process in the same pool, regardless of their names."""
        upstream = lineage.upstreams.get(engine.pool, engine.pool)
        return f"{upstream} {pool_renames.engine_address(engine)} {engine.flavour}"

    def _remember(self) -> None:
        """Restores the state that the previous controller process persisted."""
        now_s = time.monotonic()
        for name, stored in self._memory.members(self.cluster.engines, self.lineage).items():
            member = self.members[name]
            member.address, member.accepts = stored.address, stored.accepts
            known = state_machine.restore(stored.state, now_s)
            if member.health.drained:
                known = state_machine.drain(known, member.health.drain_reason).engine
            self.apply_transition(member, Transition(known))

    def _change(self) -> None:
        self.version += 1
        self._changed.set()

    async def _keep(self) -> None:
        """Persists the members after each change. A failing disk loses this state but never affects serving."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            rows = {
                name: (member.engine, StoredMember(member.health.state, member.address, member.accepts))
                for name, member in self.members.items()
                if member.health.settled and member.health.state is not EngineState.UNKNOWN
            }
            await asyncio.to_thread(self._memory.save_members, rows, self.lineage)
            await asyncio.sleep(KEEP_PAUSE_S)

    def _begin(self, name: str) -> None:
        if self._tasks:
            self._watches[name] = EngineMonitor(self, self.members[name])
            self._watching[name] = self._tasks.create_task(keep_running("engine", self._watches[name].run, engine=name))

    def _forget(self, name: str) -> None:
        member = self.members.pop(name)
        self._watches.pop(name, None)
        if task := self._watching.pop(name, None):
            task.cancel()
        metrics.remove_engine(member.engine)

    def _apply_remotes(self) -> None:
        configured = {pool.name: pool.remote for pool in self.cluster.pools if pool.remote}
        for name, endpoint in list(self.remotes.items()):
            if configured.get(name) != endpoint.remote:
                del self.remotes[name]
                if task := self._watching.pop(_remote_key(name), None):
                    task.cancel()
                metrics.remove_remote(name)
        for name, remote in configured.items():
            if name not in self.remotes:
                self.remotes[name] = RemoteEndpoint(name, remote)
                self._begin_remote(self.remotes[name])

    def _begin_remote(self, endpoint: RemoteEndpoint) -> None:
        if self._tasks:

            def emit(sentence: str) -> None:
                fields = {"pool": endpoint.pool, "state": EngineState.REMOTE.value}
                self.emit_event(f"{endpoint.remote.host} of pool {endpoint.pool} {sentence}", **fields)

            async def watch() -> None:
                await engine_monitor.monitor_remote(endpoint, lambda: self.cluster.controller, emit)

            watching = keep_running("remote", watch, pool=endpoint.pool)
            self._watching[_remote_key(endpoint.pool)] = self._tasks.create_task(watching)


def _membership(known: states.EngineHealth) -> tuple[EngineState, bool, bool, bool]:
    return known.state, known.drained, known.settled, known.timed_out


def _remote_key(pool: str) -> str:
    return f"pool {pool}"
