"""Rules that hold between fields. Each yields one sentence per problem, naming items by their names."""

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator

from manyeyes.config.cluster import Cluster
from manyeyes.config.credentials import find_repeated
from manyeyes.config.engines import Engine
from manyeyes.config.pools import AUTO
from manyeyes.config.scaling import Scaling

Rule = Callable[[Cluster], Iterator[str]]


def problems(cluster: Cluster) -> list[str]:
    """Every broken rule, as sentences that start with the place."""
    return [problem for rule in RULES for problem in rule(cluster)]


def names_are_unique(cluster: Cluster) -> Iterator[str]:
    yield from find_repeated([pool.name for pool in cluster.pools], "pools")
    yield from find_repeated([engine.name for engine in cluster.listed_engines], "engines")


def client_names_are_unique(cluster: Cluster) -> Iterator[str]:
    """A model name or alias must lead to one pool. Two pools may run the same model: then only their own names lead to them."""
    owners: dict[str, list[str]] = defaultdict(list)
    for pool in cluster.pools:
        for name in (pool.name, *pool.aliases):
            owners[name].append(pool.name)
    for name, pools in owners.items():
        for other in pools[1:]:
            if other != pools[0]:
                yield f"pools[{pools[0]}] and pools[{other}] both answer to '{name}'"


def client_names_differ_in_more_than_case(cluster: Cluster) -> Iterator[str]:
    """nginx's map knows no case. Names of one pool may differ in case only: they lead to the same place."""
    first: dict[str, tuple[str, str]] = {}
    for pool in cluster.pools:
        for name in pool.names:
            other, owner = first.setdefault(name.lower(), (name, pool.name))
            if other != name and owner != pool.name:
                yield (
                    f"pools[{owner}] answers to '{other}' and pools[{pool.name}] to '{name}', which differ in case only; "
                    "nginx takes them for one name, so choose another"
                )


def pools_exist(cluster: Cluster) -> Iterator[str]:
    names = [pool.name for pool in cluster.pools]
    for engine in cluster.listed_engines:
        if engine.pool not in names:
            yield f"engines[{engine.name}].pool is '{engine.pool}', which is not a pool; there are {', '.join(names)}"
    for pool in cluster.pools:
        for field in ("fallback", "if_weights_unavailable"):
            target = getattr(pool, field)
            if target is not None and target not in names:
                yield f"pools[{pool.name}].{field} is '{target}', which is not a pool; there are {', '.join(names)}"


def routes_lead_somewhere(cluster: Cluster) -> Iterator[str]:
    names = [pool.name for pool in cluster.pools]
    for number, route in enumerate(cluster.auto, start=1):
        if route.pool not in names:
            yield f"auto[{number}].pool is '{route.pool}', which is not a pool; there are {', '.join(names)}"
    for pool in cluster.pools:
        for name in pool.names:
            if name.lower() == AUTO:
                yield f"pools[{pool.name}] is called '{name}', which means: choose by rule"


def remote_pools_have_no_engines(cluster: Cluster) -> Iterator[str]:
    for pool in cluster.pools:
        if pool.remote is None:
            continue
        if any(engine.pool == pool.name for engine in cluster.listed_engines):
            yield f"pools[{pool.name}] is remote, so no engine can serve it; give its engines a pool of their own"
        if pool.is_tiny or pool.is_local:
            yield f"pools[{pool.name}].model must be the model's name at {pool.remote.host}, found '{pool.model}'"


def fallbacks_end(cluster: Cluster) -> Iterator[str]:
    for field in ("fallback", "if_weights_unavailable"):
        following = {pool.name: getattr(pool, field) for pool in cluster.pools}
        reported: set[str] = set()
        for start in following:
            path = [start]
            while (following_name := following.get(path[-1])) and following_name not in path:
                path.append(following_name)
            if following_name == start and start not in reported:
                reported.update(path)
                yield f"pools[{start}].{field} makes a circle: {' -> '.join([*path, start])}"


def gpus_fit_the_flavour(cluster: Cluster) -> Iterator[str]:
    for engine in cluster.listed_engines:
        if engine.address:
            if engine.gpus:
                yield f"engines[{engine.name}] has an address, so it runs already; leave out its gpus"
            continue
        if engine.flavour == "cuda" and not engine.gpus:
            yield f"engines[{engine.name}].gpus wants at least one GPU for flavour cuda, found none"
        if engine.flavour != "cuda" and engine.gpus:
            yield f"engines[{engine.name}].gpus must be empty for flavour {engine.flavour}"
        if engine.flavour == "cuda" and engine.tensor_parallel not in (None, len(engine.gpus)):
            yield (
                f"engines[{engine.name}].tensor_parallel is {engine.tensor_parallel} "
                f"but it has {len(engine.gpus)} GPU(s); leave it out to use them all"
            )
        if len(set(engine.gpus)) < len(engine.gpus):
            yield f"engines[{engine.name}].gpus names a GPU twice"


def gpus_are_not_taken_twice(cluster: Cluster) -> Iterator[str]:
    takers: dict[str, list[Engine]] = defaultdict(list)
    for engine in cluster.listed_engines:
        if engine.time_shares_with is not None:
            continue  # it runs only while the other one does not
        for gpu in set(engine.gpus):
            takers[gpu].append(engine)
    for gpu, engines in takers.items():
        shares = sum(engine.gpu_fraction for engine in engines)
        if shares <= 1 + 1e-9:
            continue
        names = " and ".join(f"engines[{engine.name}]" for engine in engines)
        if all(engine.gpu_fraction == 1 for engine in engines):
            both = "both" if len(engines) == 2 else "all"
            yield f"{names} {both} take all of GPU {gpu}"
        else:
            yield f"{names} together take {shares:.2f} of GPU {gpu}; shares must sum to at most 1"


def endpoints_are_the_adapters(cluster: Cluster) -> Iterator[str]:
    """Each has a port of the adapter, and takes what its pool takes."""
    owners: dict[str, str] = {}
    for engine in cluster.listed_engines:
        if engine.endpoint is None:
            continue
        if engine.address is None:
            yield f"engines[{engine.name}] has an endpoint, so it wants the adapter's address, such as adapter:{cluster.adapter.first_port}"
            continue
        last = cluster.adapter.first_port + cluster.adapter.ports - 1
        if not cluster.adapter.first_port <= engine.port <= last:
            yield f"engines[{engine.name}].address wants a port of the adapter, {cluster.adapter.first_port} to {last}, found {engine.port}"
        if (other := owners.setdefault(engine.address, engine.name)) != engine.name:
            yield f"engines[{other}] and engines[{engine.name}] have endpoints at the same address {engine.address}; each wants its own"
        pool = next((pool for pool in cluster.pools if pool.name == engine.pool), None)
        if pool and pool.media.images_per_prompt and not engine.endpoint.takes_pictures:
            yield (
                f"engines[{engine.name}].endpoint.template has no {{IMAGE_URL}}, and pools[{pool.name}] takes pictures; "
                "give it a pool with media.images_per_prompt 0"
            )
        if pool and pool.media.videos_per_prompt:
            yield f"engines[{engine.name}] has an endpoint, which takes no videos; give it a pool with media.videos_per_prompt 0"


def ports_differ(cluster: Cluster) -> Iterator[str]:
    taken = {"gateway.port": cluster.gateway.port}
    if cluster.monitoring.enabled:
        taken["monitoring.prometheus_port"] = cluster.monitoring.prometheus_port
        taken["monitoring.alertmanager_port"] = cluster.monitoring.alertmanager_port
    if cluster.tracing.starts_jaeger:
        taken["tracing.jaeger_port"] = cluster.tracing.jaeger_port
    for one, other in itertools.combinations(taken, 2):
        if taken[one] == taken[other]:
            yield f"{one} and {other} are both {taken[one]}"


def webhooks_lead_somewhere(cluster: Cluster) -> Iterator[str]:
    for number, webhook in enumerate(cluster.monitoring.alerting.webhooks, start=1):
        if (webhook.url is None) == (webhook.url_file is None):
            yield f"monitoring.alerting.webhooks[{number}] wants a url or a url_file, and one of them only"


def network_holds_the_controller(cluster: Cluster) -> Iterator[str]:
    network = cluster.network
    if network.subnet.num_addresses < 32:
        yield f"network.subnet {network.subnet} is too small; it wants at least 32 addresses (/27)"
        return  # what follows names addresses that such a subnet may not have
    if network.controller_ip not in network.subnet:
        yield f"network.controller_ip {network.controller_ip} is outside network.subnet {network.subnet}"
    elif network.controller_ip in (network.subnet.network_address, network.subnet.broadcast_address, network.subnet[1]):
        yield f"network.controller_ip {network.controller_ip} is taken by the network itself; use {network.subnet[2]}"
    elif network.controller_ip in network.handed_out:
        yield (
            f"network.controller_ip {network.controller_ip} is in {network.handed_out}, which Docker hands out; "
            f"use {network.subnet[2]}"
        )


def shutdown_leaves_time(cluster: Cluster) -> Iterator[str]:
    if cluster.shutdown.grace_s <= cluster.shutdown.drain_s:
        yield (
            f"shutdown.grace_s is {cluster.shutdown.grace_s} and must exceed shutdown.drain_s {cluster.shutdown.drain_s}, "
            "or Docker kills engines that still answer"
        )


def media_limits_make_sense(cluster: Cluster) -> Iterator[str]:
    for pool in cluster.pools:
        media = pool.media
        if media.min_pixels > media.max_pixels:
            yield f"pools[{pool.name}].media.min_pixels {media.min_pixels} exceeds max_pixels {media.max_pixels}"
        elif media.images_per_prompt and media.max_pixels // 1024 > pool.max_model_len:
            yield (
                f"pools[{pool.name}].media.max_pixels {media.max_pixels} is {media.max_pixels // 1024} vision tokens a picture, "
                f"more than max_model_len {pool.max_model_len}"
            )
        if media.max_decoded_pixels < media.max_pixels:
            yield (
                f"pools[{pool.name}].media.max_decoded_pixels {media.max_decoded_pixels} is below max_pixels {media.max_pixels}; "
                "larger pictures are refused before they are scaled down"
            )


def fallbacks_take_as_many_media(cluster: Cluster) -> Iterator[str]:
    """A request that its own pool would take must not be refused by the pool that stands in for it."""
    pools = {pool.name: pool for pool in cluster.pools}
    for pool in cluster.pools:
        other = pools.get(pool.fallback or "")
        if other is None:
            continue
        for key in ("images_per_prompt", "videos_per_prompt"):
            own, there = getattr(pool.media, key), getattr(other.media, key)
            if there < own:
                yield (
                    f"pools[{other.name}].media.{key} is {there}, and pools[{pool.name}], which falls back to it, takes {own}; "
                    f"give {other.name} at least {own}"
                )


def flags_are_flags(cluster: Cluster) -> Iterator[str]:
    owners = [(f"pools[{pool.name}]", pool.vllm_flags) for pool in cluster.pools]
    owners += [(f"engines[{engine.name}]", engine.vllm_flags) for engine in cluster.listed_engines]
    for owner, flags in owners:
        for flag in flags:
            name = flag.split("=")[0].split(" ")[0]
            if not flag.startswith("--") or " " in flag.split("=")[0]:
                yield f"{owner}.vllm_flags wants '--flag' or '--flag=value', found '{flag}'"
            elif name in OWN_FLAGS:
                yield f"{owner}.vllm_flags sets {name}, which ManyEyes sets itself{OWN_FLAGS[name]}"


OWN_FLAGS = {
    "--host": "",
    "--port": "",
    "--model": " from pools[].model",
    "--served-model-name": " from the pool's name and aliases",
    "--tensor-parallel-size": " from engines[].gpus",
    "--api-key": "; keys belong to the gateway",
}


def gpus_are_handed_over_in_pairs(cluster: Cluster) -> Iterator[str]:
    """`time_shares_with`: two engines of two scaled pools, the one on GPUs of the other."""
    by_name = {engine.name: engine for engine in cluster.listed_engines}
    pools = {pool.name: pool for pool in cluster.pools}
    taken: dict[str, str] = {}
    for engine in cluster.listed_engines:
        if engine.time_shares_with is None:
            continue
        place = f"engines[{engine.name}].time_shares_with"
        other = by_name.get(engine.time_shares_with)
        if other is None or other is engine:
            yield f"{place} is '{engine.time_shares_with}', which is not another engine"
            continue
        if other.time_shares_with is not None:
            yield f"{place} is '{other.name}', which itself runs instead of '{other.time_shares_with}'; pairs only"
        if other.pool == engine.pool:
            yield f"{place} is '{other.name}' of the same pool; GPUs are handed from one pool to another"
        if not set(engine.gpus) <= set(other.gpus) or engine.gpu_fraction > other.gpu_fraction:
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
    engines = [engine for engine in cluster.listed_engines if engine.pool == pool]
    handed = {engine.time_shares_with for engine in cluster.listed_engines}
    own = [engine for engine in engines if engine.time_shares_with is None and engine.name not in handed]
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
    for keep in scaling.schedule:
        if keep.engines > most:
            yield f"{place}.schedule wants {_counted(keep.engines)}, more than the {most} there may be"


def _counted(count: int) -> str:
    return f"{count} engine{'' if count == 1 else 's'}"


RULES: tuple[Rule, ...] = (
    names_are_unique,
    client_names_are_unique,
    client_names_differ_in_more_than_case,
    pools_exist,
    routes_lead_somewhere,
    remote_pools_have_no_engines,
    fallbacks_end,
    gpus_fit_the_flavour,
    gpus_are_not_taken_twice,
    endpoints_are_the_adapters,
    ports_differ,
    webhooks_lead_somewhere,
    network_holds_the_controller,
    shutdown_leaves_time,
    media_limits_make_sense,
    fallbacks_take_as_many_media,
    flags_are_flags,
    gpus_are_handed_over_in_pairs,
    scaling_fits_the_engines,
)
