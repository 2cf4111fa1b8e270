"""One configuration -> the clusters it can be on several hosts, Kubernetes or Swarm: by flavour, laid out, as the gateway and the engines there need it.

Engines of a pool that are alike are one Deployment, or service: the same command line, environment and resources.
"""

from dataclasses import dataclass

from manyeyes.config.cluster import Cluster
from manyeyes.config.engines import Engine, in_flight
from manyeyes.config.placement import HostGpu, Inventory, PlacedCluster, PlacementError, place_engines
from manyeyes.config.pools import Flavour, Pool
from manyeyes.engine.vllm_flags import serve_flags
from manyeyes.render.engine_container import environment_of
from manyeyes.render.rendered_file import plain_yaml

LISTED = "listed"
"""The name of what a configuration with a list of engines comes to."""
ORDER: tuple[Flavour, ...] = ("cuda", "cpu", "emulated")


def clusters(cluster: Cluster) -> dict[str, PlacedCluster]:
    """{cuda, cpu, emulated: laid out}, those that the pools allow; {listed: ...} where engines are a list.

    Raises PlacementError with what cannot run there.
    """
    if cluster.engines != "auto":
        return {LISTED: _fit(place_engines(cluster, Inventory()))}
    found: dict[str, PlacedCluster] = {}
    for flavour in ORDER:
        if any(flavour in pool.flavours and not pool.remote and pool.gpu_weight for pool in cluster.pools):
            found[flavour] = _fit(place_engines(cluster, inventory(cluster, flavour)))
    if not found:
        raise PlacementError("no pool can have engines; give one a flavour and a gpu_weight above 0.")
    return found


def inventory(cluster: Cluster, flavour: Flavour) -> Inventory:
    """All hosts as if they were one."""
    if flavour != "cuda":
        return Inventory(flavour=flavour)
    settings = cluster.kubernetes
    gpus = tuple(HostGpu(index=index, memory_gb=settings.gpu_memory_gb) for index in range(settings.gpus))
    return Inventory(flavour=flavour, gpus=gpus)


def _fit(cluster: PlacedCluster) -> PlacedCluster:
    """What Compose does on one host and the orchestrator does itself is taken out; what it cannot do is refused."""
    if problems := _refused(cluster):
        raise PlacementError("\n".join(problems))
    engines = tuple(engine for engine in cluster.engines if engine.time_shares_with is None)
    return cluster.model_copy(
        update={
            "engines": engines,
            # A share of a GPU is the device plugin's to arrange, MPS included.
            "gpu_sharing": "time_slicing",
            # Engines are added and drained by the orchestrator: membership is its Services'.
            "controller": cluster.controller.model_copy(update={"containers": False, "expose_api": False}),
        }
    )


def _refused(cluster: PlacedCluster) -> list[str]:
    problems = []
    for pool in cluster.served_pools:
        if pool.is_local and not pool.remote:
            problems.append(
                f"pools[{pool.name}].model is a folder of one host; give a hub id, and a mirror where there is no hub."
            )
        if not pool.name[0].isalpha():
            problems.append(f"pools[{pool.name}]: the name of a Service begins with a letter.")
        if pool.scaling and pool.scaling.actuator == "sleep":
            problems.append(
                f"pools[{pool.name}].scaling.actuator is sleep, which needs the controller; use containers."
            )
    for engine in cluster.engines:
        if engine.endpoint:
            problems.append(
                f"engines[{engine.name}].endpoint wants the adapter, which is not rendered for several hosts; use a pool with `remote`."
            )
        elif engine.address:
            problems.append(
                f"engines[{engine.name}] has an address; on several hosts engines are started. Give what runs elsewhere a pool with `remote`."
            )
    return problems


def multi_node_config(cluster: PlacedCluster) -> str:
    """Engines by name, nothing that the controller does on one host alone."""
    pools = tuple(pool.model_copy(update={"scaling": None}) for pool in cluster.pools)
    document = cluster.model_copy(update={"pools": pools}).model_dump(mode="json", exclude_defaults=True)
    return plain_yaml(document)


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
