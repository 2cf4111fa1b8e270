"""Rules between `pools[].scaling` and the engines of the pool. Each rule yields one sentence per problem."""

from collections.abc import Iterator

from manyeyes.config.cluster import Cluster
from manyeyes.config.scaling import Scaling


def scaling_fits_the_engines(cluster: Cluster) -> Iterator[str]:
    for pool in cluster.pools:
        scaling, place = pool.scaling, f"pools[{pool.name}].scaling"
        if scaling is None:
            continue
        if pool.remote is not None:
            yield f"{place} must be null, because the pool is remote and has no engines to start or stop"
        if scaling.actuator == "containers" and not cluster.controller.containers:
            yield f"{place}.actuator is containers, so controller.containers must be true"
        if scaling.target.gpu is not None and cluster.controller.gpu_metrics_url is None:
            yield f"{place}.target.gpu requires controller.gpu_metrics_url, the source of GPU utilization"
        if scaling.max is not None and scaling.min > scaling.max:
            yield f"{place}.min {scaling.min} exceeds max {scaling.max}"
        if pool.remote is None and cluster.engines != "auto":
            yield from _check_engine_counts(cluster, pool.name, scaling)
        elif scaling.max is not None:
            yield from _check_schedule(place, scaling, scaling.max)


def _check_engine_counts(cluster: Cluster, pool: str, scaling: Scaling) -> Iterator[str]:
    place = f"pools[{pool}].scaling"
    engines = [engine for engine in cluster.listed_engines if engine.pool == pool]
    time_shared = {engine.time_shares_with for engine in cluster.listed_engines}
    dedicated = [engine for engine in engines if engine.time_shares_with is None and engine.name not in time_shared]
    if scaling.max is not None and scaling.max > len(engines):
        yield f"{place}.max is {scaling.max}, but the pool has {_count_engines(len(engines))}"
    if scaling.min > len(dedicated):
        explanation = " without a GPU shared with another pool" if len(dedicated) < len(engines) else ""
        yield f"{place}.min is {scaling.min}, but the pool has {_count_engines(len(dedicated))}{explanation}"
    if scaling.actuator == "sleep":
        for engine in engines:
            if engine.flavour == "cpu":
                yield f"{place}.actuator is sleep, which vLLM supports only on GPUs; engines[{engine.name}] runs on cpu"
    yield from _check_schedule(place, scaling, min(scaling.max or len(engines), len(engines)))


def _check_schedule(place: str, scaling: Scaling, max_engines: int) -> Iterator[str]:
    for entry in scaling.schedule:
        if entry.engines > max_engines:
            yield f"{place}.schedule requires {_count_engines(entry.engines)}, but the maximum is {max_engines}"


def _count_engines(count: int) -> str:
    return f"{count} engine{'' if count == 1 else 's'}"
