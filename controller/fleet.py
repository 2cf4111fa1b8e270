"""All engines and what is known of them: watch.py looks, state.py decides, and this tells the log, the metrics and the events."""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

import structlog

from config.capacity import in_flight
from config.cluster import Cluster
from config.engines import Engine
from controller import metrics, remote, renames, state
from controller.keep_running import keep_running
from controller.kept import Kept
from controller.load import Load
from controller.memory import Memory, Remembered
from controller.remote import Endpoint
from controller.renames import Lineage
from controller.state import State, Step
from controller.watch import Watch

log = structlog.get_logger()
KEEP_PAUSE_S = 1.0
"""Members are written at most so often."""
RETIRED_FOR_S = 60.0
"""DNS goes on answering for a pool that is gone: nginx sends it requests until it has the new files."""


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
    accepts: frozenset[str] | None = None
    """Every `model` that it accepts, as it said itself at its last warm-up; None while that is not known."""
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
        self._memory = Memory(kept)
        self.lineage = self._memory.lineage()
        """Which pool was called what before."""
        self.accepts_changed: Callable[[], None] = lambda: None
        """Called when an engine accepts other names than before."""
        self._by_pool: dict[str, list[Member]] = {}
        self._by_upstream: dict[str, str] = {}
        self._retired: dict[str, tuple[float, list[Member]]] = {}
        """Members of pools that are gone, by upstream, and until when DNS answers for them."""
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
        earlier, self.lineage = self.lineage, renames.following(self.lineage, cluster)
        self._retire(earlier)
        wanted = {engine.name: engine for engine in cluster.explicit_engines}
        gone: dict[str, Member] = {}
        known_as = Counter(self._process(member.engine, earlier) for member in self.members.values())
        for name, member in list(self.members.items()):
            if name not in wanted or self._process(member.engine, earlier) != self._process(wanted[name], self.lineage):
                if known_as[process := self._process(member.engine, earlier)] == 1:
                    gone[process] = member
                self._forget(name)
        for name, engine in wanted.items():
            most = in_flight(cluster.pool(engine.pool), engine)
            if name in self.members:
                self._rename(self.members[name], engine)
                self.members[name].in_flight = most
            else:
                self._add(engine, most, gone.pop(self._process(engine, self.lineage), None))
        self.members = {name: self.members[name] for name in wanted}
        self._by_upstream = {upstream: pool for pool, upstream in self.lineage.upstreams.items()}
        if earlier != self.lineage:
            self._memory.keep_lineage(self.lineage)
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

    @property
    def accepted(self) -> Mapping[str, frozenset[str]]:
        """Every `model` that an engine accepts, by its name; nothing for one that did not say."""
        return {name: member.accepts for name, member in self.members.items() if member.accepts}

    def serving_upstream(self, upstream: str) -> tuple[str, list[Member] | None] | None:
        """The pool that nginx knows by this name, and its members that get new requests; None where there is no such pool."""
        if pool := self._by_upstream.get(upstream):
            return pool, self.serving(pool)
        if upstream in self._retired:
            until_s, members = self._retired[upstream]
            return (upstream, members) if time.monotonic() < until_s else None
        return (upstream, self.serving(upstream)) if upstream in self.pool_names else None

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

    def learn_accepted(self, member: Member, names: frozenset[str]) -> None:
        """The engine said which `model`s it accepts."""
        if member.accepts != names:
            member.accepts = names
            self._changed.set()
            self.accepts_changed()

    def _add(self, engine: Engine, most: int, before: Member | None = None) -> None:
        """`before` is the same process under the name that it had."""
        # One that comes while the others are watched was no member before, so there is nothing to wait for.
        known = before.known if before else state.Engine(settled=self._tasks is not None)
        if before and (reason := self._held.pop(before.engine.name, None)):
            self._held[engine.name] = reason
            self._memory.keep_held(self._held)
        if (reason := self._held.get(engine.name)) and not known.held:
            known = state.hold(known, reason).engine
        member = Member(engine, most, known)
        if before:
            member.address, member.since, member.load = before.address, before.since, before.load
            member.succeeded_at_s, member.reason, member.accepts = before.succeeded_at_s, before.reason, before.accepts
        self.members[engine.name] = member
        metrics.start_engine(engine, known.shown)
        self._begin(engine.name)

    def _rename(self, member: Member, engine: Engine) -> None:
        """The same engine as it is written now, perhaps in a pool that got another name."""
        before, member.engine = member.engine, engine
        if before.pool != engine.pool:
            metrics.forget_engine(before)
            metrics.start_engine(engine, member.known.shown)

    def _retire(self, earlier: Lineage) -> None:
        now_s = time.monotonic()
        self._retired = {name: one for name, one in self._retired.items() if now_s < one[0]}
        for pool, upstream in earlier.upstreams.items():
            if upstream not in self.lineage.upstreams.values() and pool in self._by_pool:
                self._retired[upstream] = (now_s + RETIRED_FOR_S, self.serving(pool) or [])

    def _process(self, engine: Engine, lineage: Lineage) -> str:
        """Equal for the same process in the same pool, whatever they are called."""
        upstream = lineage.upstreams.get(engine.pool, engine.pool)
        return f"{upstream} {renames.place(engine)} {engine.flavour}"

    def _remember(self) -> None:
        """Goes on where the controller before this one stopped."""
        now_s = time.monotonic()
        for name, one in self._memory.members(self.cluster.explicit_engines, self.lineage).items():
            member = self.members[name]
            member.address, member.accepts = one.address, one.accepts
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
            rows = {
                name: (member.engine, Remembered(member.known.state, member.address, member.accepts))
                for name, member in self.members.items()
                if member.known.settled and member.known.state is not State.UNKNOWN
            }
            await asyncio.to_thread(self._memory.keep_members, rows, self.lineage)
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


def _membership(known: state.Engine) -> tuple[State, bool, bool, bool]:
    return known.state, known.held, known.settled, known.on_doubt


def _remote_key(pool: str) -> str:
    return f"pool {pool}"
