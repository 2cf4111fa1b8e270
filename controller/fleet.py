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


class Fleet:
    """The engines of a laid-out cluster, each watched by its own task."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.members = {
            engine.name: Member(engine, in_flight(cluster.pool(engine.pool), engine))
            for engine in cluster.explicit_engines
        }
        self.pool_names = {pool.name for pool in cluster.pools}
        self.events: deque[dict[str, str]] = deque(maxlen=500)
        for member in self.members.values():
            metrics.tell_state(member.engine, member.known.state)

    def of_pool(self, pool: str) -> list[Member]:
        return [member for member in self.members.values() if member.engine.pool == pool]

    def serving(self, pool: str) -> list[Member] | None:
        """The members of a pool that get new requests; None while nothing is known."""
        known = {member.engine.name: member.known for member in self.of_pool(pool)}
        names = state.members(known)
        return None if names is None else [self.members[name] for name in names if self.members[name].address]

    async def watch(self) -> None:
        """Looks at every engine until cancelled."""
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=len(self.members))
        async with httpx.AsyncClient(limits=limits, trust_env=False) as client, asyncio.TaskGroup() as tasks:
            for member in self.members.values():
                tasks.create_task(self._watch_one(client, member))

    async def _watch_one(self, client: httpx.AsyncClient, member: Member) -> None:
        rules = self.cluster.controller
        while True:
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
        changed = step.engine.state is not member.known.state
        member.known = step.engine
        if changed:
            member.since = datetime.now(UTC)
            metrics.tell_state(member.engine, step.engine.state)
        if step.sentence:
            self._tell(member, step.sentence)

    def _tell(self, member: Member, sentence: str) -> None:
        name, current = member.engine.name, member.known.state.value
        log.info("engine_changed", engine=name, pool=member.engine.pool, state=current, sentence=f"{name} {sentence}")
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        event = {
            "at": at,
            "engine": name,
            "pool": member.engine.pool,
            "state": current,
            "sentence": f"{name} {sentence}",
        }
        if not self.events or self.events[-1]["sentence"] != event["sentence"]:
            self.events.append(event)
