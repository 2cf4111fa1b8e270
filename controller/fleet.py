"""All engines and what is known of them: watch.py looks, state.py decides, and this tells the log, the metrics and the events."""

import asyncio
import time
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime

import structlog

from config.capacity import in_flight
from config.cluster import Cluster
from config.engines import Engine
from controller import metrics, remote, state
from controller.keep_running import keep_running
from controller.kept import Kept
from controller.load import Load
from controller.memory import Memory
from controller.remote import Endpoint
from controller.state import State, Step
from controller.watch import Watch

log = structlog.get_logger()
KEEP_PAUSE_S = 1.0
"""Members are written at most so often."""


@dataclass
class Member:
    """One engine, its state, and the address it was last seen at."""

    engine: Engine
    in_flight: int
    """Requests it is given at a time."""
    known: state.Engine = field(default_factory=state.Engine)
    address: str | None = None
    since: datetime = field(default_factory=lambda: datetime.now(UTC))
    load: Load | None = None
    """What it last said of its work; None while it said nothing."""
    succeeded_at_s: float | None = None
    """When it last began an answer that succeeded, as the gateway's log says; on the monotonic clock."""
    failures: int = 0
    """Requests that failed on it since then."""
    reason: str = ""
    """Why it is in its state: the last sentence about it, without its name."""

    @property
    def since_s(self) -> float:
        """How long it is in its state."""
        return (datetime.now(UTC) - self.since).total_seconds()


class Fleet:
    """The engines of the cluster in force, each watched by its own task."""

    def __init__(self, cluster: Cluster, kept: Kept | None = None) -> None:
        self.cluster = cluster
        self.members: dict[str, Member] = {}
        self.remotes: dict[str, Endpoint] = {}
        """Pools that are served elsewhere, by their name."""
        self.events: deque[dict[str, str]] = deque(maxlen=500)
        self.version = 0
        """Another one whenever a DNS answer may be another one."""
        self._by_pool: dict[str, list[Member]] = {}
        self._memory = Memory(kept)
        self._held = self._memory.held()
        self._tasks: asyncio.TaskGroup | None = None
        self._watching: dict[str, asyncio.Task[None]] = {}
        self._watches: dict[str, Watch] = {}
        self._changed = asyncio.Event()
        self.apply(cluster)
        self._remember()

    @property
    def pool_names(self) -> set[str]:
        """Also those without engines."""
        return {pool.name for pool in self.cluster.pools}

    def apply(self, cluster: Cluster) -> None:
        """Takes over another cluster. Engines that stay the same process keep their state; the others begin anew."""
        before, self.cluster = self.cluster, cluster
        wanted = {engine.name: engine for engine in cluster.explicit_engines}
        for name, member in list(self.members.items()):
            if name not in wanted or not _same_process(member.engine, wanted[name]):
                self._forget(name)
        for name, engine in wanted.items():
            most = in_flight(cluster.pool(engine.pool), engine)
            if name in self.members:
                self.members[name].engine, self.members[name].in_flight = engine, most
            else:
                self._add(engine, most)
        self.members = {name: self.members[name] for name in wanted}
        self._by_pool = {pool.name: [] for pool in cluster.pools}
        for member in self.members.values():
            self._by_pool[member.engine.pool].append(member)
        self._apply_remotes()
        for pool in {pool.name for pool in before.pools} - self.pool_names:
            metrics.forget_pool(pool)
        for name in self._held.keys() - wanted.keys():
            del self._held[name]
        self._change()

    def hold(self, name: str, reason: str) -> None:
        """Takes an engine out of rotation, also over restarts of the controller; KeyError if there is none of that name."""
        member = self.members[name]
        if not member.known.held:
            self._held[name] = reason
            self._memory.keep_held(self._held)
        self.take(member, state.hold(member.known, reason))

    def release(self, name: str, reason: str) -> None:
        """Lets it in again; KeyError if there is none of that name."""
        member = self.members[name]
        if self._held.pop(name, None) is not None:
            self._memory.keep_held(self._held)
        self.take(member, state.release(member.known, reason))

    def of_pool(self, pool: str) -> list[Member]:
        return self._by_pool.get(pool, [])

    def serving(self, pool: str) -> list[Member] | None:
        """The members of a pool that get new requests; None while nothing is known."""
        known = {member.engine.name: member.known for member in self.of_pool(pool)}
        names = state.members(known)
        return None if names is None else [self.members[name] for name in names if self.members[name].address]

    def another_serves(self, one: Member) -> bool:
        """Whether the pool of `one` would go on without it."""
        return any(
            member is not one and member.known.serves and not member.known.held
            for member in self.of_pool(one.engine.pool)
        )

    def look_now(self, name: str) -> None:
        """Looks at an engine at once, if there is one of that name."""
        if watch := self._watches.get(name):
            watch.wake()

    def request_succeeded(self, name: str, began_at_s: float) -> None:
        """The gateway's log: an answer of this engine began then and succeeded."""
        if member := self.members.get(name):
            member.succeeded_at_s = max(began_at_s, member.succeeded_at_s or began_at_s)
            member.failures = 0

    def request_failed(self, name: str) -> None:
        """The gateway's log: it refused a connection, lost a request, answered with an error, or not at all."""
        if member := self.members.get(name):
            member.failures += 1
            self.look_now(name)

    async def watch(self) -> None:
        """Looks at every engine until cancelled."""
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

    def tell(self, sentence: str, **fields: str) -> None:
        """One sentence in the log and among the events: engine, pool and state as `fields` where it is about one."""
        member = self.members.get(fields.get("engine", ""))
        # The gateway's log names engines that did not answer by their addresses only.
        address = f"{member.address}:{member.engine.port}" if member and member.address else None
        log.info("cluster_changed", sentence=sentence, **fields, address=address)
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        if not self.events or self.events[-1]["sentence"] != sentence:
            self.events.append({"at": at, **fields, "sentence": sentence})

    def take(self, member: Member, step: Step) -> None:
        """What is known of a member from here on."""
        before, member.known = member.known, step.engine
        engine, current = member.engine, step.engine.shown
        if _membership(before) != _membership(step.engine):
            self._change()
        if current is not before.shown:
            member.since = datetime.now(UTC)
            metrics.tell_state(engine, current)
        if step.sentence:
            member.reason = step.sentence
            self.tell(f"{engine.name} {step.sentence}", engine=engine.name, pool=engine.pool, state=current.value)

    def moved(self, member: Member, address: str) -> None:
        """It was found at an address, or at another one."""
        member.address = address
        self._change()

    def _add(self, engine: Engine, most: int) -> None:
        # One that comes while the others are watched was no member before, so there is nothing to wait for.
        known = state.Engine(settled=self._tasks is not None)
        if reason := self._held.get(engine.name):
            known = state.hold(known, reason).engine
        self.members[engine.name] = Member(engine, most, known)
        metrics.start_engine(engine, State.UNKNOWN)
        self._begin(engine.name)

    def _remember(self) -> None:
        """Goes on where the controller before this one stopped."""
        now_s = time.monotonic()
        for name, one in self._memory.members(self.cluster.explicit_engines).items():
            member = self.members[name]
            member.address = one.address
            known = state.remembered(one.state, now_s)
            if member.known.held:
                known = state.hold(known, member.known.held_for).engine
            self.take(member, Step(known))

    def _change(self) -> None:
        self.version += 1
        self._changed.set()

    async def _keep(self) -> None:
        """Writes the members down after each change. A disk that refuses costs the memory, never the service."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            rows: dict[str, tuple[Engine, State, str | None]] = {
                name: (member.engine, member.known.state, member.address)
                for name, member in self.members.items()
                if member.known.settled and member.known.state is not State.UNKNOWN
            }
            await asyncio.to_thread(self._memory.keep_members, rows)
            await asyncio.sleep(KEEP_PAUSE_S)

    def _begin(self, name: str) -> None:
        if self._tasks:
            self._watches[name] = Watch(self, self.members[name])
            self._watching[name] = self._tasks.create_task(keep_running("engine", self._watches[name].run, engine=name))

    def _forget(self, name: str) -> None:
        member = self.members.pop(name)
        self._watches.pop(name, None)
        if task := self._watching.pop(name, None):
            task.cancel()
        metrics.forget_engine(member.engine)

    def _apply_remotes(self) -> None:
        wanted = {pool.name: pool.remote for pool in self.cluster.pools if pool.remote}
        for name, endpoint in list(self.remotes.items()):
            if wanted.get(name) != endpoint.remote:
                del self.remotes[name]
                if task := self._watching.pop(_remote_key(name), None):
                    task.cancel()
                metrics.forget_remote(name)
        for name, there in wanted.items():
            if name not in self.remotes:
                self.remotes[name] = Endpoint(name, there)
                self._begin_remote(self.remotes[name])

    def _begin_remote(self, endpoint: Endpoint) -> None:
        if self._tasks:

            def tell(sentence: str) -> None:
                fields = {"pool": endpoint.pool, "state": State.REMOTE.value}
                self.tell(f"{endpoint.remote.host} of pool {endpoint.pool} {sentence}", **fields)

            async def watch() -> None:
                await remote.watch(endpoint, lambda: self.cluster.controller, tell)

            watching = keep_running("remote", watch, pool=endpoint.pool)
            self._watching[_remote_key(endpoint.pool)] = self._tasks.create_task(watching)


def _same_process(one: Engine, other: Engine) -> bool:
    return (one.host, one.port, one.pool, one.flavour) == (other.host, other.port, other.pool, other.flavour)


def _membership(known: state.Engine) -> tuple[State, bool, bool, bool]:
    return known.state, known.held, known.settled, known.on_doubt


def _remote_key(pool: str) -> str:
    return f"pool {pool}"
