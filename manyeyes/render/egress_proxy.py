"""Cluster -> the egress proxy (manyeyes/egress_proxy), the one way out for engines that may fetch media by URL."""

import json
from typing import Any

from manyeyes.config.engines import Engine
from manyeyes.config.placement import PlacedCluster
from manyeyes.config.pools import Pool
from manyeyes.render.compose_env import logging_options
from manyeyes.render.engine_container import USER

MEDIA_PORT = 3128


def fetches_media(cluster: PlacedCluster) -> bool:
    """Whether Compose starts the way out for pictures by URL."""
    return bool(media_domains(cluster))


def media_domains(cluster: PlacedCluster) -> dict[str, bool]:
    """{host that engines may fetch from: whether it may be at a private address}."""
    allowed: dict[str, bool] = {}
    for pool in (cluster.pool_of(engine) for engine in cluster.started_engines if engine.flavour != "emulated"):
        for domain in pool.media.allowed_domains:
            name = domain.lower()
            allowed[name] = allowed.get(name, False) or pool.media.allow_private
    return allowed


def fetches(pool: Pool, engine: Engine) -> bool:
    return bool(pool.media.allowed_domains) and engine.flavour != "emulated"


def proxy_environment(pool: Pool, engine: Engine) -> dict[str, str]:
    """vLLM's HTTP client heeds these: the engine has no way out of its own."""
    if not fetches(pool, engine):
        return {}
    proxy = f"http://media:{MEDIA_PORT}"
    return {"http_proxy": proxy, "https_proxy": proxy, "no_proxy": "localhost,127.0.0.1"}


def media_service(cluster: PlacedCluster, allowed: dict[str, bool]) -> dict[str, Any]:
    """The one way out for engines that may fetch pictures by URL: it checks where a name leads before it connects."""
    return {
        "image": "${CONTROLLER_IMAGE}",
        "entrypoint": ["python", "-m", "manyeyes.egress_proxy"],
        "environment": {"MEDIA_DOMAINS": json.dumps(allowed), "MEDIA_PORT": str(MEDIA_PORT)},
        "networks": ["media", "media-outside"],
        "user": USER,
        "read_only": True,
        "tmpfs": ["/tmp:size=4m,mode=1777"],
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "init": True,
        "restart": "always",
        "stop_grace_period": "5s",
        "healthcheck": {
            "test": ["CMD", "python", "-m", "manyeyes.egress_proxy.healthcheck"],
            "interval": "60s",
            "timeout": "5s",
            "retries": 3,
            "start_period": "20s",
            "start_interval": "500ms",
        },
        "logging": logging_options(cluster),
        "deploy": {"resources": {"limits": {"memory": "256M", "pids": 64}}},
    }
