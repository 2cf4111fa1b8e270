"""The effective cluster: cluster.yaml merged with engines and pools registered at run time.

This is the only place where it changes. A change that breaks a rule is rejected as a whole. A valid change is passed to
every listener in order: the fleet, the gateway's files, the request log.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from manyeyes.config import validation
from manyeyes.config.engines import Engine, nearest_rendered_capacity
from manyeyes.config.placement import PlacedCluster
from manyeyes.config.pools import Pool
from manyeyes.controller.supervision import record_failure


class ChangeRejected(ValueError):
    """The change breaks rules; `problems` has one sentence for each."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = list(problems)


@dataclass(frozen=True)
class Registrations:
    """What was added to the written configuration by API."""

    pools: tuple[Pool, ...] = ()
    engines: tuple[Engine, ...] = ()
    weights: tuple[tuple[str, int], ...] = ()
    """(engine name, weight): weights that replace those in cluster.yaml."""


NO_REGISTRATIONS = Registrations()
DiscoveredEngines = dict[str, tuple[Engine, ...]]
"""By pool: engines found by service discovery (manyeyes/controller/membership/service_discovery.py)."""


def with_discovered(written: PlacedCluster, discovered: DiscoveredEngines) -> PlacedCluster:
    """Replaces the listed engines of a pool by its discovered engines.

    A pool without any keeps its listed engines. Pure.
    """
    listed = [engine for engine in written.engines if not discovered.get(engine.pool)]
    replacing = [engine for pool in written.pools for engine in discovered.get(pool.name, ())]
    return written.model_copy(update={"engines": (*listed, *replacing)})


def with_registrations(written: PlacedCluster, registered: Registrations) -> PlacedCluster:
    """Merges `registered` into the placed cluster `written`. When both have a name, `written` wins. Pure."""
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
    """The engine with a capacity that nginx's files already name, so that DNS alone can add or remove it."""
    pool = next((pool for pool in pools if pool.name == engine.pool), None)
    if pool is None:
        return engine
    return engine.model_copy(update={"max_in_flight": nearest_rendered_capacity(pool, engine, written.engines)})


def _led_on(pool: Pool, pools: tuple[Pool, ...], served: set[str]) -> Pool:
    """The pool with the next served pool of its fallback chain, as config.placement does for written pools."""
    following = {other_pool.name: other_pool.fallback for other_pool in pools}
    seen: set[str] = set()
    name = pool.fallback
    while name in following and name not in served and name not in seen:
        seen.add(name)
        name = following[name]
    return pool.model_copy(update={"fallback": name if name not in seen else pool.fallback})


class EffectiveConfig:
    """Holds the effective cluster and notifies listeners when it changes."""

    def __init__(self, written: PlacedCluster, registered: Registrations = NO_REGISTRATIONS) -> None:
        self.written = written
        self.registered = registered
        self.discovered: DiscoveredEngines = {}
        self.cluster = with_registrations(written, registered)
        self._listeners: list[Callable[[PlacedCluster], None]] = []

    def listen(self, listener: Callable[[PlacedCluster], None]) -> None:
        """Registers a listener, which is called with each new effective cluster.

        When one raises, this is logged and counted, all listeners get the previous cluster again, and the change is
        rejected.
        """
        self._listeners.append(listener)

    def apply_written(self, written: PlacedCluster) -> None:
        """Applies another placed cluster.yaml.

        Raises ChangeRejected when it conflicts with the registrations. Then nothing changes.
        """
        self._take(written, self.registered, self.discovered)

    def apply_registrations(self, registered: Registrations) -> None:
        """Applies another set of registrations. Raises ChangeRejected."""
        self._take(self.written, registered, self.discovered)

    def apply_discovered(self, discovered: DiscoveredEngines) -> None:
        """Applies another set of discovered engines. Raises ChangeRejected."""
        self._take(self.written, self.registered, discovered)

    def _take(self, written: PlacedCluster, registered: Registrations, discovered: DiscoveredEngines) -> None:
        cluster = with_registrations(with_discovered(written, discovered), registered)
        if problems := validation.problems(cluster):
            raise ChangeRejected(problems)
        before = (self.written, self.registered, self.discovered, self.cluster)
        self.written, self.registered, self.discovered, self.cluster = written, registered, discovered, cluster
        if failed := self._notify():
            self.written, self.registered, self.discovered, self.cluster = before
            self._notify()
            raise ChangeRejected(
                [f"it cannot be applied: {failed}. This is a bug; the controller's log has the details"]
            )

    def _notify(self) -> str:
        """Passes the cluster to all listeners. Returns the exception of the last one that raised, else an empty string."""
        failed = ""
        for listener in self._listeners:
            try:
                listener(self.cluster)
            except Exception as error:
                record_failure("cluster_listener", listener=getattr(listener, "__qualname__", repr(listener)))
                failed = f"{type(error).__name__}: {error}"
        return failed
