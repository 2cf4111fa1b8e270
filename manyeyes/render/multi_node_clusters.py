"""Derives the clusters for Kubernetes and Swarm from one configuration: one placed cluster for each flavour.

Engines of a pool with the same command line, environment and resources form a group, which becomes one Deployment or
service.
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
"""Key of the cluster if the configuration has a list of engines."""
ORDER: tuple[Flavour, ...] = ("cuda", "cpu", "emulated")


def clusters(cluster: Cluster) -> dict[str, PlacedCluster]:
    """{cuda, cpu, emulated: placed cluster} for the flavours that the pools allow; {listed: ...} if engines are a list.

    Raises PlacementError that lists what cannot run on several hosts.
    """
    if cluster.engines != "auto":
        return {LISTED: _adapt(place_engines(cluster, Inventory()))}
    placed_clusters: dict[str, PlacedCluster] = {}
    for flavour in ORDER:
        if any(flavour in pool.flavours and not pool.remote and pool.gpu_weight for pool in cluster.pools):
            placed_clusters[flavour] = _adapt(place_engines(cluster, inventory(cluster, flavour)))
    if not placed_clusters:
        raise PlacementError("no pool can have engines. Give a pool a flavour and a gpu_weight above 0.")
    return placed_clusters


def inventory(cluster: Cluster, flavour: Flavour) -> Inventory:
    """The GPUs of all hosts as one inventory."""
    if flavour != "cuda":
        return Inventory(flavour=flavour)
    settings = cluster.kubernetes
    gpus = tuple(HostGpu(index=index, memory_gb=settings.gpu_memory_gb) for index in range(settings.gpus))
    return Inventory(flavour=flavour, gpus=gpus)


def _adapt(cluster: PlacedCluster) -> PlacedCluster:
    """Removes the settings that the orchestrator replaces. Raises PlacementError for those that it cannot replace."""
    if problems := _list_unsupported(cluster):
        raise PlacementError("\n".join(problems))
    engines = tuple(engine for engine in cluster.engines if engine.time_shares_with is None)
    return cluster.model_copy(
        update={
            "engines": engines,
            # The device plugin divides GPUs, including with MPS.
            "gpu_sharing": "time_slicing",
            # The orchestrator adds and drains engines, and its Services decide membership.
            "controller": cluster.controller.model_copy(update={"containers": False, "expose_api": False}),
        }
    )


def _list_unsupported(cluster: PlacedCluster) -> list[str]:
    problems = []
    for pool in cluster.served_pools:
        if pool.is_local and not pool.remote:
            problems.append(
                f"pools[{pool.name}].model: expected a hub id, got a folder of one host. Use a mirror where there is no hub."
            )
        if not pool.name[0].isalpha():
            problems.append(
                f"pools[{pool.name}].name: expected a letter first, because it becomes the name of a Service."
            )
        if pool.scaling and pool.scaling.actuator == "sleep":
            problems.append(
                f"pools[{pool.name}].scaling.actuator: expected containers, got sleep, which requires the controller."
            )
    for engine in cluster.engines:
        if engine.endpoint:
            problems.append(
                f"engines[{engine.name}].endpoint requires the adapter, which is not rendered for several hosts. Use a pool with `remote`."
            )
        elif engine.address:
            problems.append(
                f"engines[{engine.name}].address is not supported on several hosts. Use a pool with `remote` for an engine that runs elsewhere."
            )
    return problems


def multi_node_config(cluster: PlacedCluster) -> str:
    """cluster.yaml with engines listed by name, without the settings that apply to one host only."""
    pools = tuple(pool.model_copy(update={"scaling": None}) for pool in cluster.pools)
    document = cluster.model_copy(update={"pools": pools}).model_dump(mode="json", exclude_defaults=True)
    return plain_yaml(document)


@dataclass(frozen=True)
class EngineGroup:
    """Engines of one pool that differ only in their GPU."""

    pool: Pool
    number: int
    """1 for the first group of the pool."""
    engine: Engine
    """One engine of the group."""
    count: int
    max_in_flight: int
    """Requests that each engine takes at a time."""

    @property
    def name(self) -> str:
        """Name of the Deployment."""
        return self.pool.name if self.number == 1 else f"{self.pool.name}-{self.number}"


def group_engines(cluster: PlacedCluster) -> list[EngineGroup]:
    """All groups, in the order of pools, then of engines."""
    groups = []
    for pool in cluster.pools:
        engines_by_key: dict[str, list[Engine]] = {}
        for engine in cluster.started_engines:
            if engine.pool == pool.name:
                engines_by_key.setdefault(_key(cluster, pool, engine), []).append(engine)
        for number, engines in enumerate(engines_by_key.values(), start=1):
            groups.append(EngineGroup(pool, number, engines[0], len(engines), in_flight(pool, engines[0])))
    return groups


def uniform_pools(cluster: PlacedCluster) -> list[EngineGroup]:
    """Groups that contain all engines of their pool, so that settings of the pool apply to them."""
    groups = group_engines(cluster)
    return [group for group in groups if sum(other_group.pool is group.pool for other_group in groups) == 1]


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
