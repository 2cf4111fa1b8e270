"""The cluster in force: what cluster.yaml says, with what was registered at run time laid over it.

The one place where it changes. A change that breaks a rule is refused whole; one that holds reaches every listener, in order:
the fleet, the gateway's files, the request log.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from manyeyes.config import validation
from manyeyes.config.engines import Engine, nearest_rendered_capacity
from manyeyes.config.placement import PlacedCluster
from manyeyes.config.pools import Pool
from manyeyes.controller.supervision import record_failure


class ChangeRejected(ValueError):
    """The change breaks rules; one sentence each."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = list(problems)


@dataclass(frozen=True)
class Registrations:
    """What the API added to the written configuration."""

    pools: tuple[Pool, ...] = ()
    engines: tuple[Engine, ...] = ()
    weights: tuple[tuple[str, int], ...] = ()
    """Another weight for an engine, by name."""


NO_REGISTRATIONS = Registrations()
DiscoveredEngines = dict[str, tuple[Engine, ...]]
"""By pool, engines that were found running (manyeyes/controller/membership/service_discovery.py)."""


def with_discovered(written: PlacedCluster, found: DiscoveredEngines) -> PlacedCluster:
    """`written` with the found engines in place of those it lists for their pool; a pool without any keeps its listed ones. Pure."""
    kept = [engine for engine in written.engines if not found.get(engine.pool)]
    there = [engine for pool in written.pools for engine in found.get(pool.name, ())]
    return written.model_copy(update={"engines": (*kept, *there)})


def with_registrations(written: PlacedCluster, registered: Registrations) -> PlacedCluster:
    """The laid-out `written` with everything registered in it. Names in `written` win where both have them. Pure."""
    pool_names = {pool.name for pool in written.pools}
    engine_names = {engine.name for engine in written.engines}
    weights = dict(registered.weights)
    pools = (*written.pools, *(pool for pool in registered.pools if pool.name not in pool_names))
    engines = [
        *written.engines,
        *(_fitted(engine, pools, written) for engine in registered.engines if engine.name not in engine_names),
    ]
    served = {engine.pool for engine in engines} | {pool.name for pool in pools if pool.remote}
    return written.model_copy(
        update={
            "pools": (*written.pools, *(_led_on(pool, pools, served) for pool in pools[len(written.pools) :])),
            "engines": tuple(
                engine.model_copy(update={"weight": weights.get(engine.name, engine.weight)}) for engine in engines
            ),
        }
    )


def _fitted(engine: Engine, pools: tuple[Pool, ...], written: PlacedCluster) -> Engine:
    """With a capacity that the gateway's files have a name for: engines come and go by DNS alone."""
    pool = next((pool for pool in pools if pool.name == engine.pool), None)
    if pool is None:
        return engine
    return engine.model_copy(update={"max_in_flight": nearest_rendered_capacity(pool, engine, written.engines)})


def _led_on(pool: Pool, pools: tuple[Pool, ...], served: set[str]) -> Pool:
    """With the next pool of its chain that can answer as its fallback, as config.placement does for written pools."""
    following = {one.name: one.fallback for one in pools}
    seen: set[str] = set()
    name = pool.fallback
    while name in following and name not in served and name not in seen:
        seen.add(name)
        name = following[name]
    return pool.model_copy(update={"fallback": name if name not in seen else pool.fallback})


class EffectiveConfig:
    """Holds the cluster in force and tells listeners when it changes."""

    def __init__(self, written: PlacedCluster, registered: Registrations = NO_REGISTRATIONS) -> None:
        self.written = written
        self.registered = registered
        self.found: DiscoveredEngines = {}
        self.cluster = with_registrations(written, registered)
        self._listeners: list[Callable[[PlacedCluster], None]] = []

    def listen(self, listener: Callable[[PlacedCluster], None]) -> None:
        """`listener` is called with every cluster that comes into force from here on. One that raises is logged and counted, and the
        others are called all the same."""
        self._listeners.append(listener)

    def apply_written(self, written: PlacedCluster) -> None:
        """Another laid-out cluster.yaml. Raises ChangeRejected, and nothing changes, when it breaks a rule together with what is registered."""
        self._take(written, self.registered, self.found)

    def apply_registrations(self, registered: Registrations) -> None:
        """The same for another set of registrations."""
        self._take(self.written, registered, self.found)

    def apply_discovered(self, found: DiscoveredEngines) -> None:
        """The same for other engines that were found running."""
        self._take(self.written, self.registered, found)

    def _take(self, written: PlacedCluster, registered: Registrations, found: DiscoveredEngines) -> None:
        cluster = with_registrations(with_discovered(written, found), registered)
        if problems := validation.problems(cluster):
            raise ChangeRejected(problems)
        self.written, self.registered, self.found, self.cluster = written, registered, found, cluster
        for listener in self._listeners:
            try:
                listener(cluster)
            except Exception:
                record_failure("cluster_listener", listener=getattr(listener, "__qualname__", repr(listener)))
