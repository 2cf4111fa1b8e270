"""All engines and what is known of them; asks probe.py, decides with state.py, tells the log, the metrics and the events."""

import asyncio
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime

import httpx
import structlog

from config.capacity import in_flight
from config.cluster import Cluster
from config.engines import Engine
from config.pools import Pool
from controller import metrics, probe, state
from controller.load import Load
from controller.state import Look, State, Step

log = structlog.get_logger()
UNSETTLED_PAUSE_S = 0.5
"""Pause between looks at an engine that is not up: a started one is found within a second."""


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


class Fleet:
    """The engines of the cluster in force, each watched by its own task."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.members: dict[str, Member] = {}
        self.events: deque[dict[str, str]] = deque(maxlen=500)
        self._client: httpx.AsyncClient | None = None
        self._tasks: asyncio.TaskGroup | None = None
        self._watching: dict[str, asyncio.Task[None]] = {}
        self.apply(cluster)

    @property
    def pool_names(self) -> set[str]:
        """Also those without engines."""
        return {pool.name for pool in self.cluster.pools}

    def apply(self, cluster: Cluster) -> None:
        """Takes over another cluster. Engines that stay the same process keep their state; the others begin anew."""
        self.cluster = cluster
        wanted = {engine.name: engine for engine in cluster.explicit_engines}
        for name, member in list(self.members.items()):
            if name not in wanted or not _same_process(member.engine, wanted[name]):
                self._forget(name)
        for name, engine in wanted.items():
            most = in_flight(cluster.pool(engine.pool), engine)
            if name in self.members:
                self.members[name].engine, self.members[name].in_flight = engine, most
            else:
                self.members[name] = Member(engine, most)
                metrics.tell_state(engine, State.UNKNOWN)
                self._begin(name)
        self.members = {name: self.members[name] for name in wanted}

    def hold(self, name: str, reason: str) -> None:
        """Takes an engine out of rotation; KeyError if there is none of that name."""
        self._take(self.members[name], state.hold(self.members[name].known, reason))

    def release(self, name: str, reason: str) -> None:
        """Lets it in again; KeyError if there is none of that name."""
        self._take(self.members[name], state.release(self.members[name].known, reason))

    def of_pool(self, pool: str) -> list[Member]:
        return [member for member in self.members.values() if member.engine.pool == pool]

    def serving(self, pool: str) -> list[Member] | None:
        """The members of a pool that get new requests; None while nothing is known."""
        known = {member.engine.name: member.known for member in self.of_pool(pool)}
        names = state.members(known)
        return None if names is None else [self.members[name] for name in names if self.members[name].address]

    async def watch(self) -> None:
        """Looks at every engine until cancelled."""
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        async with httpx.AsyncClient(limits=limits, trust_env=False) as client, asyncio.TaskGroup() as tasks:
            self._client, self._tasks = client, tasks
            for name in self.members:
                self._begin(name)
            await asyncio.Event().wait()

    def tell(self, sentence: str, **fields: str) -> None:
        """One sentence in the log and among the events: engine, pool and state as `fields` where it is about one."""
        log.info("cluster_changed", sentence=sentence, **fields)
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        if not self.events or self.events[-1]["sentence"] != sentence:
            self.events.append({"at": at, **fields, "sentence": sentence})

    def _begin(self, name: str) -> None:
        if self._tasks and self._client:
            self._watching[name] = self._tasks.create_task(self._watch_one(self._client, self.members[name]))

    def _forget(self, name: str) -> None:
        member = self.members.pop(name)
        if task := self._watching.pop(name, None):
            task.cancel()
        metrics.forget_engine(member.engine)

    async def _watch_one(self, client: httpx.AsyncClient, member: Member) -> None:
        while True:
            rules = self.cluster.controller
            await self._look(client, member)
            if member.known.state is State.WARMING:
                await self._warm_up(client, member)
            up = member.known.state is State.UP and not member.known.bad
            await asyncio.sleep(rules.probe_interval_s if up else min(rules.probe_interval_s, UNSETTLED_PAUSE_S))

    async def _look(self, client: httpx.AsyncClient, member: Member) -> None:
        address = await probe.address_of(member.engine)
        seen = Look.GONE
        if address:
            timeout_s = self.cluster.controller.probe_timeout_s
            with metrics.PROBE_SECONDS.labels(member.engine.name).time():
                seen = await probe.look_at(client, address, member.engine.port, timeout_s)
            member.address = address
        metrics.PROBES.labels(member.engine.name, seen.value).inc()
        self._take(member, state.look(member.known, seen, self.cluster.controller))

    async def _warm_up(self, client: httpx.AsyncClient, member: Member) -> None:
        pool = self._pool(member)
        pictures = pool.media.images_per_prompt > 0
        timeout_s = self.cluster.controller.warm_up_timeout_s
        assert member.address
        error = await probe.warm_up(client, member.address, member.engine.port, pool.name, pictures, timeout_s)
        self._take(member, state.warmed(member.known, error))

    def _pool(self, member: Member) -> Pool:
        return self.cluster.pool(member.engine.pool)

    def _take(self, member: Member, step: Step) -> None:
        changed = step.engine.shown is not member.known.shown
        member.known = step.engine
        engine, current = member.engine, step.engine.shown
        if changed:
            member.since = datetime.now(UTC)
            metrics.tell_state(engine, current)
        if step.sentence:
            self.tell(f"{engine.name} {step.sentence}", engine=engine.name, pool=engine.pool, state=current.value)


def _same_process(one: Engine, other: Engine) -> bool:
    return (one.host, one.port, one.pool, one.flavour) == (other.host, other.port, other.pool, other.flavour)
