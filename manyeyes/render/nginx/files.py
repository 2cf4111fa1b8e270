"""Configuration and keys -> every file of nginx that depends on them. Pure: the same input gives the same bytes.

The controller writes them (manyeyes/controller/config_sync/config_generations.py), nginx/start.sh takes them over.
"""

import hashlib

from manyeyes.config.cluster import Cluster
from manyeyes.config.keys import Keys
from manyeyes.render.header import for_gateway
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
from manyeyes.render.nginx.njs_config import cluster_js
from manyeyes.render.nginx.paths import CONTAINERS, Places
from manyeyes.render.nginx.pool_names import AS_WRITTEN, Naming
from manyeyes.render.nginx.tracing import tracing_conf
from manyeyes.render.nginx.upstreams import pools_conf
from manyeyes.render.nginx.webui import page_conf

NO_KEYS = Keys()
GENERATION, SUMS = "generation", "generation.sha256"


def gateway_files(
    cluster: Cluster, keys: Keys = NO_KEYS, places: Places = CONTAINERS, naming: Naming = AS_WRITTEN
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


def as_generation(files: dict[str, str]) -> tuple[str, dict[str, str]]:
    """The generation's name, and the files with those that carry it: for nginx to tell, and to see that a copy is whole."""
    name = hashlib.sha256("\0".join(part for pair in sorted(files.items()) for part in pair).encode()).hexdigest()[:12]
    told = for_gateway(f'map "" $manyeyes_generation {{ default "{name}"; }}\n')
    complete = {**files, "generation.conf": told, GENERATION: f"{name}\n"}
    sums = "".join(f"{hashlib.sha256(text.encode()).hexdigest()}  {file}\n" for file, text in sorted(complete.items()))
    return name, {**complete, SUMS: sums}
