"""Rules that hold between the settings of scaling and the engines. See rules.py."""

from collections.abc import Iterator

from manyeyes.config.cluster import Cluster
from manyeyes.config.engines import Engine
from manyeyes.config.scaling import Scaling


def gpus_are_handed_over_in_pairs(cluster: Cluster) -> Iterator[str]:
    """`instead_of`: two engines of two scaled pools, the one on GPUs of the other."""
    by_name = {engine.name: engine for engine in engines_of(cluster)}
    pools = {pool.name: pool for pool in cluster.pools}
    taken: dict[str, str] = {}
    for engine in engines_of(cluster):
        if engine.instead_of is None:
            continue
        place = f"engines[{engine.name}].instead_of"
        other = by_name.get(engine.instead_of)
        if other is None or other is engine:
            yield f"{place} is '{engine.instead_of}', which is not another engine"
            continue
        if other.instead_of is not None:
            yield f"{place} is '{other.name}', which itself runs instead of '{other.instead_of}'; pairs only"
        if other.pool == engine.pool:
            yield f"{place} is '{other.name}' of the same pool; GPUs are handed from one pool to another"
        if not set(engine.gpus) <= set(other.gpus) or engine.share > other.share:
            yield f"{place} is '{other.name}', so it may only take GPUs of that one, and no larger share"
        if other.name in taken:
            yield f"{place} is '{other.name}', which engines[{taken[other.name]}] already stands in for"
        taken[other.name] = engine.name
        for one in (engine, other):
            scaling = pools[one.pool].scaling if one.pool in pools else None
            if one.pool in pools and (scaling is None or scaling.actuator != "containers"):
                yield f"{place} wants pools[{one.pool}].scaling with the actuator containers: somebody must start and stop the two"


def scaling_fits_the_engines(cluster: Cluster) -> Iterator[str]:
    for pool in cluster.pools:
        scaling, place = pool.scaling, f"pools[{pool.name}].scaling"
        if scaling is None:
            continue
        if pool.remote is not None:
            yield f"{place} has no engines to start or stop: the pool is remote"
        if scaling.actuator == "containers" and not cluster.controller.containers:
            yield f"{place}.actuator is containers, so controller.containers must be true"
        if scaling.target.gpu is not None and cluster.controller.gpu_metrics_url is None:
            yield f"{place}.target.gpu wants controller.gpu_metrics_url, where the GPUs' use is told"
        if scaling.max is not None and scaling.min > scaling.max:
            yield f"{place}.min {scaling.min} exceeds max {scaling.max}"
        if pool.remote is None and cluster.engines != "auto":
            yield from _counts_can_be_had(cluster, pool.name, scaling)
        elif scaling.max is not None:
            yield from _keeps_fit(place, scaling, scaling.max)


def _counts_can_be_had(cluster: Cluster, pool: str, scaling: Scaling) -> Iterator[str]:
    place = f"pools[{pool}].scaling"
    engines = [engine for engine in engines_of(cluster) if engine.pool == pool]
    handed = {engine.instead_of for engine in engines_of(cluster)}
    own = [engine for engine in engines if engine.instead_of is None and engine.name not in handed]
    if scaling.max is not None and scaling.max > len(engines):
        yield f"{place}.max is {scaling.max}, but the pool has {_counted(len(engines))}"
    if scaling.min > len(own):
        shared = " that no other pool may take the GPU of" if len(own) < len(engines) else ""
        yield f"{place}.min is {scaling.min}, but the pool has {_counted(len(own))}{shared}"
    if scaling.actuator == "sleep":
        for engine in engines:
            if engine.flavour == "cpu":
                yield f"{place}.actuator is sleep, which vLLM has on GPUs only; engines[{engine.name}] is on cpu"
    yield from _keeps_fit(place, scaling, min(scaling.max or len(engines), len(engines)))


def _keeps_fit(place: str, scaling: Scaling, most: int) -> Iterator[str]:
    for keep in scaling.keep:
        if keep.engines > most:
            yield f"{place}.keep wants {_counted(keep.engines)}, more than the {most} there may be"


def _counted(count: int) -> str:
    return f"{count} engine{'' if count == 1 else 's'}"


def engines_of(cluster: Cluster) -> tuple[Engine, ...]:
    return () if cluster.engines == "auto" else cluster.engines
