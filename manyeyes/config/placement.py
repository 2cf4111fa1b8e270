"""Places engines on a host's GPUs: `engines: auto` made explicit, as a pure function of configuration and host."""

from pydantic import Field

from manyeyes.config.cluster import Cluster
from manyeyes.config.engines import Engine
from manyeyes.config.fields import Section
from manyeyes.config.pools import Flavour, Pool, Route


class HostGpu(Section):
    """One GPU as nvidia-smi tells it."""

    index: int = Field(ge=0)
    """Number in nvidia-smi."""
    uuid: str = ""
    """GPU-... or empty where unknown."""
    name: str = "unknown GPU"
    """Product name."""
    memory_gb: float = Field(24, gt=0)
    """Total memory in GiB."""


class Inventory(Section):
    """Read by `make up`, written beside what is rendered, so that every part lays out the same engines."""

    flavour: Flavour = "cuda"
    """What engines run on here."""
    gpus: tuple[HostGpu, ...] = ()
    """GPUs, in nvidia-smi's order."""
    missing_models: tuple[str, ...] = ()
    """Models whose weights can be had neither from the volume nor from the hub."""


DEFAULT_INVENTORY = Inventory(flavour="cuda", gpus=(HostGpu(index=0), HostGpu(index=1)))
"""What the committed rendering assumes, so that a plain `docker compose up` works: two GPUs of 24 GiB."""


class PlacementError(ValueError):
    """This configuration cannot be laid out on this host; the message says what to do."""


class PlacedCluster(Cluster):
    """A cluster whose engines are known, each with its GPUs and its pool: made by place_engines(), and what is rendered and served."""

    engines: tuple[Engine, ...]
    """Never auto."""

    def pool_of(self, engine: Engine) -> Pool:
        return self.pool(engine.pool)

    def engines_of(self, pool: str) -> tuple[Engine, ...]:
        return tuple(engine for engine in self.engines if engine.pool == pool)

    @property
    def engines_alone_in_pool(self) -> dict[str, str]:
        """{engine: its pool} of engines whose pool has no other."""
        return {engine.name: engine.pool for engine in self.engines if len(self.engines_of(engine.pool)) == 1}

    @property
    def started_engines(self) -> tuple[Engine, ...]:
        """The engines that Compose starts; the others run already, at their `address`."""
        return tuple(engine for engine in self.engines if engine.address is None)

    @property
    def starts_adapter(self) -> bool:
        has_endpoints = any(engine.endpoint for engine in self.engines)
        return has_endpoints if self.adapter.enabled is None else self.adapter.enabled

    @property
    def watches_gpus(self) -> bool:
        """Whether NVIDIA's exporter runs, so that there are figures about GPUs."""
        on_gpus = any(engine.flavour == "cuda" for engine in self.started_engines)
        wanted = on_gpus if self.monitoring.gpu_exporter is None else self.monitoring.gpu_exporter
        return wanted and self.monitoring.enabled

    @property
    def served_pools(self) -> tuple[Pool, ...]:
        """The pools that can answer: by at least one engine, or elsewhere. In the file's order."""
        served = {engine.pool for engine in self.engines}
        return tuple(pool for pool in self.pools if pool.name in served or pool.remote)

    @property
    def routes(self) -> tuple[Route, ...]:
        """The rules for `model: auto` that lead to a pool that can answer."""
        served = [pool.name for pool in self.served_pools]
        rules = tuple(rule for rule in self.auto if rule.pool in served)
        return rules or tuple(Route(pool=name) for name in served)


def place_engines(cluster: Cluster, inventory: Inventory) -> PlacedCluster:
    """The same cluster with a list of engines, only served pools' fallbacks, and GPU memory filled in.

    Raises PlacementError when there is nothing to run it on.
    """
    engines = cluster.engines if cluster.engines != "auto" else _automatic(cluster, inventory)
    return with_engines(cluster, tuple(_with_gpu_memory(engine, inventory) for engine in engines))


def with_engines(cluster: Cluster, engines: tuple[Engine, ...]) -> PlacedCluster:
    """The same cluster with these engines; a pool's fallback becomes the next one of its chain that they, or others, serve."""
    served = {engine.pool for engine in engines} | {pool.name for pool in cluster.pools if pool.remote}
    pools = tuple(pool.model_copy(update={"fallback": _fallback(cluster, pool, served)}) for pool in cluster.pools)
    sections = {name: getattr(cluster, name) for name in Cluster.model_fields}
    return PlacedCluster.model_construct(
        cluster.model_fields_set | {"engines", "pools"}, **sections | {"engines": engines, "pools": pools}
    )


def _fallback(cluster: Cluster, pool: Pool, served: set[str]) -> str | None:
    """The next pool of its chain that can answer."""
    name = pool.fallback
    while name and name not in served:
        name = cluster.pool(name).fallback
    return name


def _automatic(cluster: Cluster, inventory: Inventory) -> tuple[Engine, ...]:
    flavour = inventory.flavour
    pools = _candidates(cluster, inventory)
    places: list[tuple[str, tuple[str, ...]]]
    if flavour == "cuda":
        if not inventory.gpus:
            raise PlacementError("flavour cuda wants a GPU and none was found. Try FLAVOUR=cpu or FLAVOUR=emulated.")
        places = [(f"gpu-{gpu.index}", (str(gpu.index),)) for gpu in inventory.gpus]
    elif flavour == "cpu":
        places = [(f"cpu-{number}", ()) for number in range(cluster.cpu_engines)]
    else:
        places = [(f"emu-{number}", ()) for number in range(cluster.emulated_engines)]
    counts = distribute(len(places), [pool.gpu_weight for pool in pools])
    owners = [pool for pool, count in zip(pools, counts, strict=True) for _ in range(count)]
    return tuple(
        Engine(name=name, pool=pool.name, flavour=flavour, gpus=gpus)
        for (name, gpus), pool in zip(places, owners, strict=True)
    )


def _candidates(cluster: Cluster, inventory: Inventory) -> list[Pool]:
    chosen: list[Pool] = []
    stand_ins = {pool.if_weights_unavailable for pool in cluster.pools}
    for pool in cluster.pools:
        if pool.remote or inventory.flavour not in pool.flavours or pool.gpu_weight == 0 or pool.name in stand_ins:
            continue
        while pool.model in inventory.missing_models and pool.if_weights_unavailable:
            pool = cluster.pool(pool.if_weights_unavailable)
        if pool not in chosen:
            chosen.append(pool)
    if not chosen:
        raise PlacementError(
            f"no pool is for flavour {inventory.flavour}. "
            f"Add {inventory.flavour} to the `flavours` of a pool whose gpu_weight is above 0."
        )
    return chosen


def distribute(places: int, weights: list[int]) -> list[int]:
    """How many of `places` each weight gets: at least one each in order while they last, then by largest remainder.

    >>> deal(1, [3, 1]), deal(2, [3, 1]), deal(3, [3, 1]), deal(8, [3, 1])
    ([1, 0], [1, 1], [2, 1], [6, 2])
    """
    counts = [1 if position < places else 0 for position in range(len(weights))]
    for _ in range(places - sum(counts)):
        total = sum(weights)
        owed = [weight * places / total - count for weight, count in zip(weights, counts, strict=True)]
        counts[owed.index(max(owed))] += 1
    return counts


def _with_gpu_memory(engine: Engine, inventory: Inventory) -> Engine:
    if engine.gpu_memory_gb is not None or not engine.gpus:
        return engine
    known = {str(gpu.index): gpu.memory_gb for gpu in inventory.gpus} | {
        gpu.uuid: gpu.memory_gb for gpu in inventory.gpus
    }
    found = [known[gpu] for gpu in engine.gpus if gpu in known]
    return engine.model_copy(update={"gpu_memory_gb": min(found)}) if found else engine
