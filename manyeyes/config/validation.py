"""Rules between fields of cluster.yaml. Each rule yields one sentence per problem, with the names of the items."""

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator

from manyeyes.config.cluster import Cluster
from manyeyes.config.credentials import find_repeated
from manyeyes.config.engines import Engine
from manyeyes.config.pools import AUTO
from manyeyes.config.scaling_validation import scaling_fits_the_engines

Rule = Callable[[Cluster], Iterator[str]]
EXPECTED_POOL = "expected the name of a pool"
"""loader.py searches for this text, to drop problems that follow from an invalid pool."""


def problems(cluster: Cluster) -> list[str]:
    """Returns one sentence per problem. Each sentence starts with the place."""
    return [problem for rule in RULES for problem in rule(cluster)]


def names_are_unique(cluster: Cluster) -> Iterator[str]:
    yield from find_repeated([pool.name for pool in cluster.pools], "pools")
    yield from find_repeated([engine.name for engine in cluster.listed_engines], "engines")


def client_names_are_unique(cluster: Cluster) -> Iterator[str]:
    """A name or alias must belong to one pool. Two pools may run the same model; clients then use the pools' names."""
    owners: dict[str, list[str]] = defaultdict(list)
    for pool in cluster.pools:
        for name in (pool.name, *pool.aliases):
            owners[name].append(pool.name)
    for name, pools in owners.items():
        for other_pool in pools[1:]:
            if other_pool != pools[0]:
                yield f"pools[{pools[0]}] and pools[{other_pool}] both use the name '{name}'"


def client_names_differ_in_more_than_case(cluster: Cluster) -> Iterator[str]:
    """nginx's map ignores case. Names of the same pool may differ only in case."""
    spellings: dict[str, tuple[str, str]] = {}
    for pool in cluster.pools:
        for name in pool.names:
            other_name, owner = spellings.setdefault(name.lower(), (name, pool.name))
            if other_name != name and owner != pool.name:
                yield (
                    f"pools[{owner}] uses the name '{other_name}' and pools[{pool.name}] uses '{name}', which differ only "
                    "in case, and nginx ignores case; choose a different name"
                )


def pools_exist(cluster: Cluster) -> Iterator[str]:
    names = [pool.name for pool in cluster.pools]
    for engine in cluster.listed_engines:
        if engine.pool not in names:
            yield f"engines[{engine.name}].pool: {EXPECTED_POOL}, got '{engine.pool}'; the pools are {', '.join(names)}"
    for pool in cluster.pools:
        for field in ("fallback", "if_gpu_too_small", "if_weights_unavailable"):
            target = getattr(pool, field)
            if target is not None and target not in names:
                yield f"pools[{pool.name}].{field}: {EXPECTED_POOL}, got '{target}'; the pools are {', '.join(names)}"


def routed_pools_exist(cluster: Cluster) -> Iterator[str]:
    names = [pool.name for pool in cluster.pools]
    for number, route in enumerate(cluster.auto, start=1):
        if route.pool not in names:
            yield f"auto[{number}].pool: {EXPECTED_POOL}, got '{route.pool}'; the pools are {', '.join(names)}"
    for pool in cluster.pools:
        for name in pool.names:
            if name.lower() == AUTO:
                yield f"pools[{pool.name}] uses the name '{name}', which is reserved for the routing rules in `auto:`"


def remote_pools_have_no_engines(cluster: Cluster) -> Iterator[str]:
    for pool in cluster.pools:
        if pool.remote is None:
            continue
        if any(engine.pool == pool.name for engine in cluster.listed_engines):
            yield f"pools[{pool.name}] is remote, so it cannot have engines; assign its engines to another pool"
        if pool.is_tiny or pool.is_local:
            yield f"pools[{pool.name}].model: expected the model name at {pool.remote.host}, got '{pool.model}'"


def fallbacks_end(cluster: Cluster) -> Iterator[str]:
    for field in ("fallback", "if_gpu_too_small", "if_weights_unavailable"):
        following = {pool.name: getattr(pool, field) for pool in cluster.pools}
        reported: set[str] = set()
        for start in following:
            path = [start]
            while (following_name := following.get(path[-1])) and following_name not in path:
                path.append(following_name)
            if following_name == start and start not in reported:
                reported.update(path)
                yield f"pools[{start}].{field} makes a cycle: {' -> '.join([*path, start])}"


def gpus_fit_the_flavour(cluster: Cluster) -> Iterator[str]:
    for engine in cluster.listed_engines:
        if engine.address:
            if engine.gpus:
                yield f"engines[{engine.name}] has an address, so it already runs; remove its gpus"
            continue
        if engine.flavour == "cuda" and not engine.gpus:
            yield f"engines[{engine.name}].gpus: expected at least one GPU for flavour cuda, got none"
        if engine.flavour != "cuda" and engine.gpus:
            yield f"engines[{engine.name}].gpus must be empty for flavour {engine.flavour}"
        if engine.flavour == "cuda" and engine.tensor_parallel not in (None, len(engine.gpus)):
            yield (
                f"engines[{engine.name}].tensor_parallel is {engine.tensor_parallel} "
                f"but the engine has {len(engine.gpus)} GPU(s); remove tensor_parallel to use all of them"
            )
        if len(set(engine.gpus)) < len(engine.gpus):
            yield f"engines[{engine.name}].gpus lists the same GPU twice"


def gpus_are_not_used_twice(cluster: Cluster) -> Iterator[str]:
    users: dict[str, list[Engine]] = defaultdict(list)
    for engine in cluster.listed_engines:
        if engine.time_shares_with is not None:
            continue  # it runs only while the other engine does not
        for gpu in set(engine.gpus):
            users[gpu].append(engine)
    for gpu, engines in users.items():
        shares = sum(engine.gpu_fraction for engine in engines)
        if shares <= 1 + 1e-9:
            continue
        names = " and ".join(f"engines[{engine.name}]" for engine in engines)
        if all(engine.gpu_fraction == 1 for engine in engines):
            quantifier = "both" if len(engines) == 2 else "all"
            yield f"{names} {quantifier} use all of GPU {gpu}"
        else:
            yield f"{names} together use {shares:.2f} of GPU {gpu}; the sum of gpu_fraction must be at most 1"


def endpoints_are_the_adapters(cluster: Cluster) -> Iterator[str]:
    """An endpoint needs a port of the adapter, and must accept the images and videos that its pool accepts."""
    owners: dict[str, str] = {}
    for engine in cluster.listed_engines:
        if engine.endpoint is None:
            continue
        if engine.address is None:
            yield (
                f"engines[{engine.name}].address: expected the adapter's address, such as "
                f"adapter:{cluster.adapter.first_port}, because the engine has an endpoint"
            )
            continue
        last = cluster.adapter.first_port + cluster.adapter.ports - 1
        if not cluster.adapter.first_port <= engine.port <= last:
            yield (
                f"engines[{engine.name}].address: expected a port of the adapter, "
                f"{cluster.adapter.first_port} to {last}, got {engine.port}"
            )
        if (other_engine := owners.setdefault(engine.address, engine.name)) != engine.name:
            yield (
                f"engines[{other_engine}] and engines[{engine.name}] have endpoints at the same address {engine.address}; "
                "give each a separate port"
            )
        pool = next((pool for pool in cluster.pools if pool.name == engine.pool), None)
        if pool and pool.media.images_per_prompt and not engine.endpoint.accepts_images:
            yield (
                f"engines[{engine.name}].endpoint.template has no {{IMAGE_URL}}, but pools[{pool.name}] accepts "
                "images; assign the engine to a pool with media.images_per_prompt 0"
            )
        if pool and pool.media.videos_per_prompt:
            yield (
                f"engines[{engine.name}] has an endpoint, which does not accept videos; "
                "assign the engine to a pool with media.videos_per_prompt 0"
            )


def ports_differ(cluster: Cluster) -> Iterator[str]:
    ports = {"gateway.port": cluster.gateway.port}
    if cluster.monitoring.enabled:
        ports["monitoring.prometheus_port"] = cluster.monitoring.prometheus_port
        ports["monitoring.alertmanager_port"] = cluster.monitoring.alertmanager_port
    if cluster.tracing.starts_jaeger:
        ports["tracing.jaeger_port"] = cluster.tracing.jaeger_port
    for key, other_key in itertools.combinations(ports, 2):
        if ports[key] == ports[other_key]:
            yield f"{key} and {other_key} are both {ports[key]}"


def webhooks_have_one_url(cluster: Cluster) -> Iterator[str]:
    for number, webhook in enumerate(cluster.monitoring.alerting.webhooks, start=1):
        if (webhook.url is None) == (webhook.url_file is None):
            got = "neither" if webhook.url is None else "both"
            yield f"monitoring.alerting.webhooks[{number}]: expected either url or url_file, got {got}"


def controller_address_is_in_network(cluster: Cluster) -> Iterator[str]:
    network = cluster.network
    if network.subnet.num_addresses < 32:
        yield f"network.subnet {network.subnet} is too small; it needs at least 32 addresses (/27)"
        return  # the checks below use addresses that a smaller subnet may not have
    if network.controller_ip not in network.subnet:
        yield f"network.controller_ip {network.controller_ip} is outside network.subnet {network.subnet}"
    elif network.controller_ip in (network.subnet.network_address, network.subnet.broadcast_address, network.subnet[1]):
        yield f"network.controller_ip {network.controller_ip} is reserved by the network; use {network.subnet[2]}"
    elif network.controller_ip in network.assigned_range:
        yield (
            f"network.controller_ip {network.controller_ip} is in {network.assigned_range}, from which Docker assigns "
            f"addresses; use {network.subnet[2]}"
        )


def shutdown_leaves_time(cluster: Cluster) -> Iterator[str]:
    if cluster.shutdown.grace_s <= cluster.shutdown.drain_s:
        yield (
            f"shutdown.grace_s is {cluster.shutdown.grace_s} and must exceed shutdown.drain_s "
            f"{cluster.shutdown.drain_s}; otherwise Docker kills engines that still answer"
        )


def media_limits_make_sense(cluster: Cluster) -> Iterator[str]:
    for pool in cluster.pools:
        media = pool.media
        if media.min_pixels > media.max_pixels:
            yield f"pools[{pool.name}].media.min_pixels {media.min_pixels} exceeds max_pixels {media.max_pixels}"
        elif media.images_per_prompt and media.max_pixels // 1024 > pool.max_model_len:
            yield (
                f"pools[{pool.name}].media.max_pixels {media.max_pixels} is {media.max_pixels // 1024} vision tokens "
                f"per image, more than max_model_len {pool.max_model_len}"
            )
        if media.max_decoded_pixels < media.max_pixels:
            yield (
                f"pools[{pool.name}].media.max_decoded_pixels {media.max_decoded_pixels} is below max_pixels "
                f"{media.max_pixels}; larger images are rejected before they are scaled down"
            )
        if media.max_request_pixels < media.max_decoded_pixels:
            yield (
                f"pools[{pool.name}].media.max_request_pixels {media.max_request_pixels} is below max_decoded_pixels "
                f"{media.max_decoded_pixels}; a request with one image of that size would be rejected"
            )


def fallbacks_accept_as_many_media(cluster: Cluster) -> Iterator[str]:
    """A fallback must accept every request that the pool itself accepts."""
    pools = {pool.name: pool for pool in cluster.pools}
    for pool in cluster.pools:
        fallback = pools.get(pool.fallback or "")
        if fallback is None:
            continue
        for key in ("images_per_prompt", "videos_per_prompt"):
            limit, fallback_limit = getattr(pool.media, key), getattr(fallback.media, key)
            if fallback_limit < limit:
                yield (
                    f"pools[{fallback.name}].media.{key} is {fallback_limit}, but pools[{pool.name}], which falls back to it, "
                    f"accepts {limit}; set at least {limit} for {fallback.name}"
                )


def flags_are_flags(cluster: Cluster) -> Iterator[str]:
    owners = [(f"pools[{pool.name}]", pool.vllm_flags) for pool in cluster.pools]
    owners += [(f"engines[{engine.name}]", engine.vllm_flags) for engine in cluster.listed_engines]
    for owner, flags in owners:
        for flag in flags:
            name = flag.split("=")[0].split(" ")[0]
            if not flag.startswith("--") or " " in flag.split("=")[0]:
                yield f"{owner}.vllm_flags: expected '--flag' or '--flag=value', got '{flag}'"
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


def time_shared_gpus_are_in_pairs(cluster: Cluster) -> Iterator[str]:
    """`time_shares_with` joins two engines of two autoscaled pools; one uses GPUs of the other."""
    by_name = {engine.name: engine for engine in cluster.listed_engines}
    pools = {pool.name: pool for pool in cluster.pools}
    taken: dict[str, str] = {}
    for engine in cluster.listed_engines:
        if engine.time_shares_with is None:
            continue
        place = f"engines[{engine.name}].time_shares_with"
        partner = by_name.get(engine.time_shares_with)
        if partner is None or partner is engine:
            yield f"{place}: expected the name of another engine, got '{engine.time_shares_with}'"
            continue
        if partner.time_shares_with is not None:
            yield (
                f"{place} is '{partner.name}', which itself time-shares with '{partner.time_shares_with}'; "
                "only pairs are allowed"
            )
        if partner.pool == engine.pool:
            yield f"{place} is '{partner.name}' of the same pool; the two engines must be in different pools"
        if not set(engine.gpus) <= set(partner.gpus) or engine.gpu_fraction > partner.gpu_fraction:
            yield (
                f"{place} is '{partner.name}', so the engine may use only GPUs of '{partner.name}' "
                "and no larger gpu_fraction"
            )
        if partner.name in taken:
            yield f"{place} is '{partner.name}', which already time-shares with engines[{taken[partner.name]}]"
        taken[partner.name] = engine.name
        for member in (engine, partner):
            scaling = pools[member.pool].scaling if member.pool in pools else None
            if member.pool in pools and (scaling is None or scaling.actuator != "containers"):
                yield (
                    f"{place} requires pools[{member.pool}].scaling with the actuator containers, "
                    "which starts and stops the two engines"
                )


RULES: tuple[Rule, ...] = (
    names_are_unique,
    client_names_are_unique,
    client_names_differ_in_more_than_case,
    pools_exist,
    routed_pools_exist,
    remote_pools_have_no_engines,
    fallbacks_end,
    gpus_fit_the_flavour,
    gpus_are_not_used_twice,
    endpoints_are_the_adapters,
    ports_differ,
    webhooks_have_one_url,
    controller_address_is_in_network,
    shutdown_leaves_time,
    media_limits_make_sense,
    fallbacks_accept_as_many_media,
    flags_are_flags,
    time_shared_gpus_are_in_pairs,
    scaling_fits_the_engines,
)
