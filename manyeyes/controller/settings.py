"""The controller's environment, read once."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

from manyeyes.render.nginx.naming import NginxPaths


@dataclass(frozen=True)
class Settings:
    """Where to read and where to listen."""

    config: Path
    """cluster.yaml."""
    inventory: Path
    """What the host has, as `make up` found it."""
    state: Path
    """What outlives a restart: see manyeyes/controller/state_store.py."""
    offered: Path
    """Where nginx's files are written: see manyeyes/controller/config_sync/config_generations.py."""
    places: NginxPaths
    """What those files name."""
    gateway: str
    """The port of the gateway that tells which files it runs on."""
    secrets: Path
    """The secrets folder, read only."""
    adapter_name: str
    """Under which host name engines with an `endpoint` are reached."""
    services: str
    """On Kubernetes and Swarm the name of a Service, with {} for the pool, and the port: Services say there who is in a pool
    (manyeyes/controller/membership/service_discovery.py). Else empty."""
    resolver: str
    """Who is asked for them, as address:port; empty: whom the system asks."""
    host: str
    closed_host: str
    """Where DNS and the gateway's log are taken: in a network that only engines, gateway and Prometheus are in."""
    http_port: int
    dns_port: int
    syslog_port: int
    """UDP, for the gateway's request log."""
    containers: str
    """The filter in front of Docker's socket: see manyeyes/render/docker_socket_filter.py."""

    @classmethod
    def from_environment(cls) -> "Settings":
        return cls(
            config=Path(os.environ.get("MANYEYES_CONFIG", "config/cluster.yaml")),
            inventory=Path(os.environ.get("MANYEYES_INVENTORY", "compose/rendered/default/inventory.yaml")),
            state=Path(os.environ.get("MANYEYES_STATE", "build/state")),
            offered=Path(os.environ.get("MANYEYES_OFFERED", "build/offered")),
            places=NginxPaths(**json.loads(os.environ.get("MANYEYES_PLACES", "{}"))),
            gateway=os.environ.get("MANYEYES_GATEWAY_INSIDE", "http://gateway:8088"),
            secrets=Path(os.environ.get("MANYEYES_SECRETS", "secrets")),
            adapter_name=os.environ.get("MANYEYES_ADAPTER_NAME", "adapter"),
            services=os.environ.get("MANYEYES_SERVICES", ""),
            resolver=os.environ.get("MANYEYES_RESOLVER", ""),
            host=os.environ.get("MANYEYES_CONTROLLER_HOST", "0.0.0.0"),
            closed_host=os.environ.get("MANYEYES_CONTROLLER_CLOSED_HOST")
            or os.environ.get("MANYEYES_CONTROLLER_HOST", "0.0.0.0"),
            http_port=int(os.environ.get("MANYEYES_CONTROLLER_HTTP_PORT", "8081")),
            dns_port=int(os.environ.get("MANYEYES_CONTROLLER_DNS_PORT", "5353")),
            syslog_port=int(os.environ.get("MANYEYES_CONTROLLER_SYSLOG_PORT", "5140")),
            containers=os.environ.get("MANYEYES_CONTAINERS", "http://containers:2375"),
        )
