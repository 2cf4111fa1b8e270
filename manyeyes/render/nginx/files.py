"""Configuration and keys -> every file of nginx that depends on them. Pure: the same input gives the same bytes.

The controller writes them (manyeyes/controller/config_sync/nginx_publisher.py), nginx/start.sh takes them over.
"""

import hashlib
import json
from typing import Any

from manyeyes.config.keys import ApiKeys
from manyeyes.config.placement import PlacedCluster
from manyeyes.config.pools import Pool
from manyeyes.render.nginx.access import (
    access_conf,
    beside_conf,
    controller_conf,
    keys_conf,
    limits_conf,
    listen_conf,
    settings_conf,
    workers_conf,
)
from manyeyes.render.nginx.locations import caches_conf, locations_conf
from manyeyes.render.nginx.naming import AS_WRITTEN, CONTAINER_PATHS, NginxPaths, PoolNaming
from manyeyes.render.nginx.tracing import tracing_conf
from manyeyes.render.nginx.upstreams import model_names, page_conf, pools_conf
from manyeyes.render.rendered_file import GATEWAY_HEADER, with_gateway_header


def cluster_js(cluster: PlacedCluster, naming: PoolNaming = AS_WRITTEN) -> str:
    """A JavaScript module that exports one object."""
    pools = cluster.served_pools
    pool_of_name = model_names(pools, naming)
    facts = {
        "pools": {pool.name: _pool(pool, pool_of_name, naming) for pool in pools},
        "auto": [route.model_dump(mode="json") for route in cluster.routes],
        "hash_pictures": any(pool.balancing == "image" for pool in pools),
    }
    return f"// {GATEWAY_HEADER}\nexport default {json.dumps(facts, indent=2)};\n"


def _pool(pool: Pool, pool_of_name: dict[str, str], naming: PoolNaming) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "names": [name for name, owner in pool_of_name.items() if owner == pool.name],
        "next": pool.fallback or "",
        "domains": [domain.lower() for domain in pool.media.allowed_domains],
        "cache": {"shared": pool.cache.shared} if pool.cache else None,
    }
    if pool.remote:
        facts |= {"model": pool.model, "host": pool.remote.host, "key_file": pool.remote.key_file or ""}
    if pool.name in naming.asked:
        facts["asked"] = naming.asked[pool.name]
    return facts


NO_KEYS = ApiKeys()
GENERATION, SUMS = "generation", "generation.sha256"


def gateway_files(
    cluster: PlacedCluster,
    keys: ApiKeys = NO_KEYS,
    places: NginxPaths = CONTAINER_PATHS,
    naming: PoolNaming = AS_WRITTEN,
) -> dict[str, str]:
    """{file: text} for a laid-out cluster."""
    return {
        "pools.conf": pools_conf(cluster, places, naming),
        "caches.conf": caches_conf(cluster, places, naming),
        "keys.conf": keys_conf(cluster, keys),
        "access.inc": access_conf(cluster, keys),
        "beside.inc": beside_conf(places),
        "controller.inc": controller_conf(cluster, places),
        "limits.inc": limits_conf(keys),
        "listen.inc": listen_conf(cluster, places),
        "page.conf": page_conf(cluster, places),
        "locations.inc": locations_conf(cluster, places, naming),
        "settings.inc": settings_conf(cluster),
        "tracing.conf": tracing_conf(cluster),
        "workers.inc": workers_conf(cluster),
        "cluster.js": cluster_js(cluster, naming),
    }


def build_generation(files: dict[str, str]) -> tuple[str, dict[str, str]]:
    """The generation's name, and the files with those that carry it: for nginx to tell, and to see that a copy is whole."""
    name = hashlib.sha256("\0".join(part for pair in sorted(files.items()) for part in pair).encode()).hexdigest()[:12]
    told = with_gateway_header(f'map "" $manyeyes_generation {{ default "{name}"; }}\n')
    complete = {**files, "generation.conf": told, GENERATION: f"{name}\n"}
    sums = "".join(f"{hashlib.sha256(text.encode()).hexdigest()}  {file}\n" for file, text in sorted(complete.items()))
    return name, {**complete, SUMS: sums}
