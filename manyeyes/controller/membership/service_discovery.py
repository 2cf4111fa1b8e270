"""Service discovery on Kubernetes and Swarm: finds a pool's engines through the DNS name of its Service.

nginx resolves the same name, so the controller does not decide membership there: it only monitors the engines and shows
their state. It needs no access to the Kubernetes or Docker API. While a name cannot be resolved, the pool keeps the
engines that were found last.
"""

import asyncio
from collections.abc import Callable

import dns.asyncresolver
import dns.exception
import dns.name
import dns.rdatatype
import dns.resolver

from manyeyes.config.engines import Engine, in_flight
from manyeyes.config.placement import PlacedCluster
from manyeyes.controller.config_sync.effective_config import ChangeRejected, DiscoveredEngines, EffectiveConfig

WITHIN_S = 5.0


class ServiceDiscovery:
    """Finds engines under `name`, which has {} for the pool, and a port: {}.manyeyes.svc.cluster.local:8000."""

    def __init__(self, name: str, resolver: str, effective: EffectiveConfig, emit_event: Callable[[str], None]) -> None:
        self.name, _, port = name.rpartition(":")
        self.port = int(port)
        self.effective = effective
        self.emit_event = emit_event
        self._resolver = dns.asyncresolver.Resolver(configure=not resolver)
        if resolver:
            address, _, port = resolver.rpartition(":")
            self._resolver.nameservers, self._resolver.port = [address], int(port)
        self._resolver.lifetime = WITHIN_S
        self._discovered: DiscoveredEngines = {}

    async def run(self) -> None:
        while True:
            await self.poll()
            await asyncio.sleep(self.effective.cluster.kubernetes.resolve_interval_s)

    async def poll(self) -> None:
        """Resolves the name of every pool once, and applies changes immediately."""
        written = self.effective.written
        names = [pool.name for pool in written.pools if pool.remote is None]
        members = await asyncio.gather(*(self._members(name) for name in names))
        discovered = dict(self._discovered)
        for name, addresses in zip(names, members, strict=True):
            if addresses is not None:
                discovered[name] = engines_at(written, name, addresses, self.port)
        if discovered == self._discovered:
            return
        before, self._discovered = self._discovered, discovered
        try:
            self.effective.apply_discovered(discovered)
        except ChangeRejected as error:
            self.emit_event(f"the engines found by service discovery cannot be applied: {error}")
            return
        for sentence in describe_changes(before, discovered):
            self.emit_event(sentence)

    async def _members(self, pool: str) -> list[str] | None:
        """The addresses of the pool's ready engines; None when the name server does not respond."""
        name = dns.name.from_text(f"{self.name.format(pool)}.")
        try:
            answer = await self._resolver.resolve(name, dns.rdatatype.A, raise_on_no_answer=False)
        except dns.resolver.NXDOMAIN:
            return []
        except (dns.exception.DNSException, OSError, ValueError):
            return None
        return sorted(record.address for record in answer.rrset or ())


def engines_at(written: PlacedCluster, pool: str, addresses: list[str], port: int) -> tuple[Engine, ...]:
    """Engines at the found addresses, with the settings of the pool's first configured engine.

    Their names are their addresses with dashes, as in CoreDNS.
    """
    like = next((engine for engine in written.engines if engine.pool == pool), None)
    flavour = like.flavour if like else "cuda"
    max_in_flight = in_flight(written.pool(pool), like) if like else None
    return tuple(
        Engine(
            name=address.replace(".", "-"),
            pool=pool,
            flavour=flavour,
            address=f"{address}:{port}",
            max_in_flight=max_in_flight,
        )
        for address in addresses
    )


def describe_changes(before: DiscoveredEngines, after: DiscoveredEngines) -> list[str]:
    """Returns one sentence for each pool whose members changed."""
    sentences = []
    for pool, engines in after.items():
        names, had = {engine.name for engine in engines}, {engine.name for engine in before.get(pool, ())}
        added, removed = sorted(names - had), sorted(had - names)
        parts = ([f"added {', '.join(added)}"] if added else []) + (
            [f"removed {', '.join(removed)}"] if removed else []
        )
        if parts:
            sentences.append(f"the Service {pool} {' and '.join(parts)}: {len(names)} in total")
    return sentences
