"""Places engines on the GPUs of a host: turns `engines: auto` into a list of engines. Pure."""

from math import floor, inf
from pathlib import Path

from pydantic import Field, ValidationError

from manyeyes.config import documents
from manyeyes.config.cluster import Cluster
from manyeyes.config.documents import DocumentError
from manyeyes.config.engines import Engine
from manyeyes.config.fields import Section
from manyeyes.config.gpu_memory import MIN_COMPUTE_CAPABILITY, MIN_MEMORY_GB, UTILIZATION, fits, model_memory
from manyeyes.config.pools import Flavour, Pool, Route


class HostGpu(Section):
    """One GPU, as reported by nvidia-smi."""

    index: int = Field(ge=0)
    """Number in nvidia-smi."""
    uuid: str = ""
    """GPU-..., or empty if unknown."""
    name: str = "unknown GPU"
    """Product name."""
    memory_gb: float = Field(24, gt=0)
    """Total memory in GiB."""
    used_gb: float = Field(0, ge=0)
    """Memory in GiB that programs outside of this cluster used when `make up` ran."""
    compute_capability: float | None = None
    """Such as 8.9; null if unknown."""
    is_partitioned: bool = False
    """MIG is enabled, so engines use MIG devices and not the GPU."""

    @property
    def utilization(self) -> float:
        """Largest --gpu-memory-utilization with which vLLM starts: it refuses a value above the free share."""
        free_share = (self.memory_gb - self.used_gb) / self.memory_gb
        return UTILIZATION if free_share >= UTILIZATION else max(0.0, floor(free_share * 100 - 1) / 100)


class Inventory(Section):
    """The hardware of a host. `make up` stores it with the rendered files, so that all parts place the same engines."""

    flavour: Flavour = "cuda"
    """What engines run on."""
    gpus: tuple[HostGpu, ...] = ()
    """GPUs, in the order of nvidia-smi."""
    missing_models: tuple[str, ...] = ()
    """Models whose weights are available neither in the volume nor on the hub."""


DEFAULT_INVENTORY = Inventory(flavour="cuda", gpus=(HostGpu(index=0), HostGpu(index=1)))
"""Two GPUs of 24 GiB. The committed rendered files are made for it, so that a plain `docker compose up` works."""


class PlacementError(ValueError):
    """The engines of this configuration cannot be placed on this host. The message says what to do."""


def load_inventory(path: Path) -> Inventory:
    """Reads the inventory of a host. Raises PlacementError."""
    try:
        return parse_inventory(documents.read_text(path))
    except (OSError, DocumentError) as error:
        raise PlacementError(f"the inventory {path} cannot be read: {error}") from error


def parse_inventory(text: str) -> Inventory:
    """Same as load_inventory(), from text. Raises PlacementError, and no other exception for any text."""
    try:
        return Inventory.model_validate(documents.parse(text))
    except (ValidationError, DocumentError) as error:
        raise PlacementError(
            f"the inventory of this host, which `make up` writes, cannot be read: {' '.join(str(error).split())}"
        ) from error


class PlacedCluster(Cluster):
    """A cluster with a list of engines. place_engines() makes it; renderers and the controller use it."""

    engines: tuple[Engine, ...]
    """Never auto."""

    def pool_of(self, engine: Engine) -> Pool:
        return self.pool(engine.pool)

    def engines_of(self, pool: str) -> tuple[Engine, ...]:
        return tuple(engine for engine in self.engines if engine.pool == pool)

    @property
    def engines_alone_in_pool(self) -> dict[str, str]:
        """{engine: pool} of the engines that are the only one of their pool."""
        return {engine.name: engine.pool for engine in self.engines if len(self.engines_of(engine.pool)) == 1}

    @property
    def started_engines(self) -> tuple[Engine, ...]:
        """The engines that Compose starts. The others already run, at their `address`."""
        return tuple(engine for engine in self.engines if engine.address is None)

    @property
    def starts_adapter(self) -> bool:
        has_endpoints = any(engine.endpoint for engine in self.engines)
        return has_endpoints if self.adapter.enabled is None else self.adapter.enabled

    @property
    def watches_gpus(self) -> bool:
        """Whether NVIDIA's exporter runs, so that GPU metrics are available."""
        on_gpus = any(engine.flavour == "cuda" for engine in self.started_engines)
        is_enabled = on_gpus if self.monitoring.gpu_exporter is None else self.monitoring.gpu_exporter
        return is_enabled and self.monitoring.enabled

    @property
    def served_pools(self) -> tuple[Pool, ...]:
        """The pools that have an engine or are remote, in the order of the file."""
        served = {engine.pool for engine in self.engines}
        return tuple(pool for pool in self.pools if pool.name in served or pool.remote)

    @property
    def routes(self) -> tuple[Route, ...]:
        """The rules for `model: auto` whose pool is served."""
        served = [pool.name for pool in self.served_pools]
        rules = tuple(rule for rule in self.auto if rule.pool in served)
        return rules or tuple(Route(pool=name) for name in served)


def place_engines(cluster: Cluster, inventory: Inventory) -> PlacedCluster:
    """Returns the cluster with a list of engines, with fallbacks only to served pools, and with GPU memory filled in.

    Raises PlacementError if the host has nothing to run engines on.
    """
    engines = cluster.engines if cluster.engines != "auto" else _place_automatically(cluster, inventory)
    return with_engines(cluster, tuple(_with_gpu_memory(engine, inventory) for engine in engines))


def with_engines(cluster: Cluster, engines: tuple[Engine, ...]) -> PlacedCluster:
    """Returns the cluster with these engines. The fallback of a pool becomes the next served pool of its fallback
    chain."""
    served = {engine.pool for engine in engines} | {pool.name for pool in cluster.pools if pool.remote}
    pools = tuple(pool.model_copy(update={"fallback": _fallback(cluster, pool, served)}) for pool in cluster.pools)
    sections = {name: getattr(cluster, name) for name in Cluster.model_fields}
    return PlacedCluster.model_construct(
        cluster.model_fields_set | {"engines", "pools"}, **sections | {"engines": engines, "pools": pools}
    )


def _fallback(cluster: Cluster, pool: Pool, served: set[str]) -> str | None:
    """Returns the next served pool of the fallback chain, or None."""
    name = pool.fallback
    while name and name not in served:
        name = cluster.pool(name).fallback
    return name


def _place_automatically(cluster: Cluster, inventory: Inventory) -> tuple[Engine, ...]:
    flavour = inventory.flavour
    if flavour == "cuda":
        pool_by_gpu = assign_gpus(cluster, inventory)[0]
        return tuple(
            Engine(name=f"gpu-{index}", pool=pool, flavour="cuda", gpus=(str(index),))
            for index, pool in sorted(pool_by_gpu.items())
        )
    number, prefix = (cluster.cpu_engines, "cpu") if flavour == "cpu" else (cluster.emulated_engines, "emu")
    owners = _share_out(number, _candidates(cluster, inventory))
    return tuple(Engine(name=f"{prefix}-{index}", pool=pool.name, flavour=flavour) for index, pool in enumerate(owners))


def assign_gpus(cluster: Cluster, inventory: Inventory) -> tuple[dict[int, str], dict[int, str]]:
    """Assigns each GPU the largest suitable pool: GPUs with more memory get the pools with larger models.

    Returns ({GPU: pool}, {GPU: why no engine runs on it}). Raises PlacementError if no GPU can run an engine.
    """
    if not inventory.gpus:
        raise PlacementError("flavour cuda requires a GPU, but none was found. Try FLAVOUR=cpu or FLAVOUR=emulated.")
    unused = {gpu.index: problem for gpu in inventory.gpus if (problem := _problem(gpu))}
    usable = sorted((gpu for gpu in inventory.gpus if gpu.index not in unused), key=lambda gpu: -gpu.memory_gb)
    owners = sorted(_share_out(len(usable), _candidates(cluster, inventory)), key=_weights_gb, reverse=True)
    pool_by_gpu: dict[int, str] = {}
    for gpu, owner in zip(usable, owners, strict=True):
        if (pool := _fitting(cluster, owner, gpu)) is None:
            unused[gpu.index] = f"{_shown(gpu)}: no model of `{owner.name}` and its `if_gpu_too_small` fits"
        else:
            pool_by_gpu[gpu.index] = pool.name
    if not pool_by_gpu:
        raise PlacementError(f"no GPU can run an engine. {'; '.join(unused.values())}. Try FLAVOUR=cpu.")
    return pool_by_gpu, unused


def _problem(gpu: HostGpu) -> str:
    """Why no engine can run on the GPU, whatever the model; or empty."""
    if gpu.is_partitioned:
        return (
            f"{_shown(gpu)}: MIG is enabled. List `engines:` with their MIG devices (`nvidia-smi -L` shows them) and "
            "`gpu_memory_gb`, or disable MIG"
        )
    if gpu.compute_capability is not None and gpu.compute_capability < MIN_COMPUTE_CAPABILITY:
        return (
            f"{_shown(gpu)}: compute capability {gpu.compute_capability:g}, and vLLM needs {MIN_COMPUTE_CAPABILITY:g} "
            "(Turing) or newer"
        )
    if gpu.memory_gb < MIN_MEMORY_GB:
        return f"{_shown(gpu)}: an engine needs 6 GB of GPU memory"
    return ""


def _fitting(cluster: Cluster, pool: Pool, gpu: HostGpu) -> Pool | None:
    """The pool, or the first pool of its `if_gpu_too_small` chain that fits; None if no pool fits."""
    while not fits(pool, gpu.memory_gb, gpu.utilization):
        if pool.if_gpu_too_small is None:
            return None
        pool = cluster.pool(pool.if_gpu_too_small)
    return pool


def _shown(gpu: HostGpu) -> str:
    used = f", {gpu.used_gb:g} GiB used by other programs" if gpu.utilization < UTILIZATION else ""
    return f"GPU {gpu.index} ({gpu.name}, {gpu.memory_gb:g} GiB{used})"


def _weights_gb(pool: Pool) -> float:
    """Of an unknown model it is assumed to be the largest."""
    model = model_memory(pool)
    return model.weights_gb if model else inf


def _share_out(places: int, pools: list[Pool]) -> list[Pool]:
    counts = distribute(places, [pool.gpu_weight for pool in pools])
    return [pool for pool, count in zip(pools, counts, strict=True) for _ in range(count)]


def _candidates(cluster: Cluster, inventory: Inventory) -> list[Pool]:
    candidates: list[Pool] = []
    replacements = {pool.if_weights_unavailable for pool in cluster.pools}
    for pool in cluster.pools:
        if pool.remote or inventory.flavour not in pool.flavours or pool.gpu_weight == 0 or pool.name in replacements:
            continue
        while pool.model in inventory.missing_models and pool.if_weights_unavailable:
            pool = cluster.pool(pool.if_weights_unavailable)
        if pool not in candidates:
            candidates.append(pool)
    if not candidates:
        raise PlacementError(
            f"no pool supports flavour {inventory.flavour}. "
            f"Add {inventory.flavour} to the `flavours` of a pool whose gpu_weight is above 0."
        )
    return candidates


def distribute(places: int, weights: list[int]) -> list[int]:
    """Returns how many of `places` each weight gets. Each gets one first, in order; the rest go by largest remainder.

    >>> distribute(1, [3, 1]), distribute(2, [3, 1]), distribute(3, [3, 1]), distribute(8, [3, 1])
    ([1, 0], [1, 1], [2, 1], [6, 2])
    """
    counts = [1 if position < places else 0 for position in range(len(weights))]
    for _ in range(places - sum(counts)):
        total = sum(weights)
        shortfalls = [weight * places / total - count for weight, count in zip(weights, counts, strict=True)]
        counts[shortfalls.index(max(shortfalls))] += 1
    return counts


def _with_gpu_memory(engine: Engine, inventory: Inventory) -> Engine:
    """The engine with the memory of its GPUs, and with a smaller share of it if other programs use them."""
    by_name = {str(gpu.index): gpu for gpu in inventory.gpus} | {gpu.uuid: gpu for gpu in inventory.gpus if gpu.uuid}
    gpus = [by_name[name] for name in engine.gpus if name in by_name]
    if not gpus:
        return engine
    smallest = min(gpu.memory_gb for gpu in gpus)
    utilization = min(gpu.utilization for gpu in gpus)
    found = {} if engine.gpu_memory_gb is not None else {"gpu_memory_gb": smallest}
    if engine.gpu_memory_utilization is None and engine.gpu_fraction == 1 and utilization < UTILIZATION:
        found["gpu_memory_utilization"] = utilization
    return engine.model_copy(update=found)
