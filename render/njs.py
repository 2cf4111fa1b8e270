"""Cluster -> cluster.js: what the gateway's njs modules know of the configuration."""

import json
from typing import Any

from config.cluster import Cluster
from config.pools import Pool
from render.file import GATEWAY_HEADER
from render.nginx import names


def cluster_js(cluster: Cluster) -> str:
    """A JavaScript module that exports one object."""
    pools = cluster.served_pools
    pool_of_name = names(pools)
    facts = {
        "pools": {pool.name: _pool(pool, pool_of_name) for pool in pools},
        "auto": [route.model_dump(mode="json") for route in cluster.routes],
        "hash_pictures": any(pool.balancing == "image" for pool in pools),
    }
    return f"// {GATEWAY_HEADER}\nexport default {json.dumps(facts, indent=2)};\n"


def _pool(pool: Pool, pool_of_name: dict[str, str]) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "names": [name for name, owner in pool_of_name.items() if owner == pool.name],
        "next": pool.fallback or "",
        "domains": [domain.lower() for domain in pool.media.allowed_domains],
        "cache": {"shared": pool.cache.shared} if pool.cache else None,
    }
    if pool.remote:
        facts |= {"model": pool.model, "host": pool.remote.host, "key_file": pool.remote.key_file or ""}
    return facts
