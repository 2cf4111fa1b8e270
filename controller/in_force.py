"""The cluster in force: what cluster.yaml says, with what was registered at run time laid over it.

The one place where it changes. A change that breaks a rule is refused whole; one that holds reaches every listener, in order:
the fleet, the gateway's files, the request log.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from config import rules
from config.cluster import Cluster
from config.engines import Engine
from config.pools import Pool


class Refused(ValueError):
    """The change breaks rules; one sentence each."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = list(problems)


@dataclass(frozen=True)
class Registered:
    """What the API added to the written configuration."""

    pools: tuple[Pool, ...] = ()
    engines: tuple[Engine, ...] = ()
    weights: tuple[tuple[str, int], ...] = ()
    """Another weight for an engine, by name."""


NOTHING = Registered()


def merged(written: Cluster, registered: Registered) -> Cluster:
    """The laid-out `written` with everything registered in it. Names in `written` win where both have them. Pure."""
    pool_names = {pool.name for pool in written.pools}
    engine_names = {engine.name for engine in written.explicit_engines}
    weights = dict(registered.weights)
    engines = [
        *written.explicit_engines,
        *(engine for engine in registered.engines if engine.name not in engine_names),
    ]
    return written.model_copy(
        update={
            "pools": (*written.pools, *(pool for pool in registered.pools if pool.name not in pool_names)),
            "engines": tuple(
                engine.model_copy(update={"weight": weights.get(engine.name, engine.weight)}) for engine in engines
            ),
        }
    )


class InForce:
    """Holds the cluster in force and tells listeners when it changes."""

    def __init__(self, written: Cluster, registered: Registered = NOTHING) -> None:
        self.written = written
        self.registered = registered
        self.cluster = merged(written, registered)
        self._listeners: list[Callable[[Cluster], None]] = []

    def listen(self, listener: Callable[[Cluster], None]) -> None:
        """`listener` is called with every cluster that comes into force from here on. It must not raise."""
        self._listeners.append(listener)

    def take_written(self, written: Cluster) -> None:
        """Another laid-out cluster.yaml. Raises Refused, and nothing changes, when it breaks a rule together with what is registered."""
        self._take(written, self.registered)

    def take_registered(self, registered: Registered) -> None:
        """Another set of registrations. Raises Refused, and nothing changes, when it breaks a rule."""
        self._take(self.written, registered)

    def _take(self, written: Cluster, registered: Registered) -> None:
        cluster = merged(written, registered)
        if problems := rules.problems(cluster):
            raise Refused(problems)
        self.written, self.registered, self.cluster = written, registered, cluster
        for listener in self._listeners:
            listener(cluster)
