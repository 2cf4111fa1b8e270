"""Cluster -> cluster.js: what the gateway's njs modules know of the configuration."""

import json
from typing import Any

from manyeyes.config.cluster import Cluster
from manyeyes.config.pools import Pool
from manyeyes.render.header import GATEWAY_HEADER
from manyeyes.render.nginx.pool_names import AS_WRITTEN, Naming
from manyeyes.render.nginx.upstreams import names


def cluster_js(cluster: Cluster, naming: Naming = AS_WRITTEN) -> str:
    """A JavaScript module that exports one object."""
    pools = cluster.served_pools
    pool_of_name = names(pools, naming)
    facts = {
        "pools": {pool.name: _pool(pool, pool_of_name, naming) for pool in pools},
        "auto": [route.model_dump(mode="json") for route in cluster.routes],
        "hash_pictures": any(pool.balancing == "image" for pool in pools),
    }
    return f"// {GATEWAY_HEADER}\nexport default {json.dumps(facts, indent=2)};\n"


def _pool(pool: Pool, pool_of_name: dict[str, str], naming: Naming) -> dict[str, Any]:
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
