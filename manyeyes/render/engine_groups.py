"""Engines of a pool that are alike are one Deployment: the same command line, environment and resources."""

from dataclasses import dataclass

from manyeyes.config.capacity import in_flight
from manyeyes.config.engines import Engine
from manyeyes.config.placement import PlacedCluster
from manyeyes.config.pools import Pool
from manyeyes.engine.vllm_flags import serve_flags
from manyeyes.render.engine_container import environment_of


@dataclass(frozen=True)
class EngineGroup:
    """Engines of one pool that differ in nothing but their GPU."""

    pool: Pool
    number: int
    """1 for the pool's first."""
    engine: Engine
    """One of them."""
    count: int
    most: int
    """Requests that each of them takes at a time."""

    @property
    def name(self) -> str:
        """The Deployment's."""
        return self.pool.name if self.number == 1 else f"{self.pool.name}-{self.number}"


def group_engines(cluster: PlacedCluster) -> list[EngineGroup]:
    """In the order of pools, then of engines."""
    found = []
    for pool in cluster.pools:
        alike: dict[str, list[Engine]] = {}
        for engine in cluster.started_engines:
            if engine.pool == pool.name:
                alike.setdefault(_key(cluster, pool, engine), []).append(engine)
        for number, engines in enumerate(alike.values(), start=1):
            found.append(EngineGroup(pool, number, engines[0], len(engines), in_flight(pool, engines[0])))
    return found


def uniform_pools(cluster: PlacedCluster) -> list[EngineGroup]:
    """Those that are the whole of their pool: what the pool as a whole has to do can be told of them."""
    every = group_engines(cluster)
    return [shape for shape in every if sum(other.pool is shape.pool for other in every) == 1]


def _key(cluster: PlacedCluster, pool: Pool, engine: Engine) -> str:
    return repr(
        (
            engine.flavour,
            serve_flags(cluster, engine),
            environment_of(cluster, pool, engine),
            engine.parallel,
            engine.memory_gb,
            engine.shm_gb,
            in_flight(pool, engine),
        )
    )
