"""Configuration and host -> every rendered file. Pure: the same input gives the same bytes."""

import hashlib
from pathlib import Path

from config.cluster import Cluster
from config.inventory import Inventory
from config.keys import Keys
from config.layout import lay_out
from render.edge import access_conf, controller_conf, keys_conf, limits_conf, listen_conf, settings_conf
from render.engines import engines_yaml
from render.environment import compose_env
from render.file import as_yaml
from render.locations import caches_conf, locations_conf
from render.nginx import pools_conf
from render.njs import cluster_js
from render.prometheus import prometheus_yml

NO_KEYS = Keys()
RELOADED = ("nginx/access.inc", "nginx/keys.conf", "nginx/limits.inc")
"""What the running gateway takes over by a reload: a new key closes no port and forgets no conversation."""


def render(
    cluster: Cluster,
    inventory: Inventory,
    config_file: Path,
    rendered_dir: Path,
    checkout: str = "",
    keys: Keys = NO_KEYS,
) -> dict[str, str]:
    """{path inside rendered_dir: text}. Raises LayoutError when the host cannot run the configuration.

    `checkout` stands for the hand-written files that services mount; another value starts those services anew.
    """
    laid_out = lay_out(cluster, inventory)
    files = {
        "inventory.yaml": as_yaml(inventory.model_dump(mode="json")),
        "engines.yaml": engines_yaml(laid_out),
        "nginx/pools.conf": pools_conf(laid_out),
        "nginx/caches.conf": caches_conf(laid_out),
        "nginx/keys.conf": keys_conf(laid_out, keys),
        "nginx/access.inc": access_conf(laid_out, keys),
        "nginx/controller.inc": controller_conf(laid_out),
        "nginx/limits.inc": limits_conf(keys),
        "nginx/listen.inc": listen_conf(laid_out),
        "nginx/locations.inc": locations_conf(laid_out),
        "nginx/settings.inc": settings_conf(laid_out),
        "nginx/cluster.js": cluster_js(laid_out),
        "prometheus/prometheus.yml": prometheus_yml(laid_out),
    }
    gateway = [text for name, text in files.items() if name.startswith("nginx/") and name not in RELOADED]
    digests = {
        "gateway": _digest(*gateway, checkout),
        "controller": _digest(laid_out.model_dump_json()),
        "webui": _digest(laid_out.webui.model_dump_json(), laid_out.gateway.model_dump_json()),
        "prometheus": _digest(files["prometheus/prometheus.yml"]),
    }
    return files | {"compose.env": compose_env(laid_out, config_file, rendered_dir, digests)}


def _digest(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:12]
