"""The controller's environment, read once."""

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from manyeyes.render.nginx.naming import NginxPaths


class ControllerSettings(BaseSettings):
    """Where to read and where to listen. The variable is MANYEYES_ and the field's name where no other is given."""

    model_config = SettingsConfigDict(env_prefix="MANYEYES_", env_ignore_empty=True, frozen=True)

    config: Path = Path("config/cluster.yaml")
    """cluster.yaml."""
    inventory: Path = Path("compose/rendered/default/inventory.yaml")
    """What the host has, as `make up` found it."""
    state: Path = Path("build/state")
    """What outlives a restart: see manyeyes/controller/state_store.py."""
    nginx_config_dir: Path = Path("build/offered")
    """Where nginx's files are written: see manyeyes/controller/config_sync/nginx_publisher.py."""
    nginx_paths: NginxPaths = NginxPaths()
    """What those files name, in JSON."""
    gateway: str = Field("http://gateway:8088", validation_alias="MANYEYES_GATEWAY_INTERNAL_URL")
    """The port of the gateway that tells which files it runs on."""
    secrets: Path = Path("secrets")
    """The secrets folder, read only."""
    adapter_name: str = "adapter"
    """Under which host name engines with an `endpoint` are reached."""
    services: str = ""
    """On Kubernetes and Swarm the name of a Service, with {} for the pool, and the port: Services say there who is in a pool
    (manyeyes/controller/membership/service_discovery.py). Else empty."""
    resolver: str = ""
    """Who is asked for them, as address:port; empty: whom the system asks."""
    host: str = Field("0.0.0.0", validation_alias="MANYEYES_CONTROLLER_HOST")
    internal_host: str = Field(
        default_factory=lambda data: str(data["host"]), validation_alias="MANYEYES_CONTROLLER_INTERNAL_HOST"
    )
    """Where DNS and the gateway's log are taken: in a network that only engines, gateway and Prometheus are in."""
    http_port: int = Field(8081, validation_alias="MANYEYES_CONTROLLER_HTTP_PORT")
    dns_port: int = Field(5353, validation_alias="MANYEYES_CONTROLLER_DNS_PORT")
    syslog_port: int = Field(5140, validation_alias="MANYEYES_CONTROLLER_SYSLOG_PORT")
    """UDP, for the gateway's request log."""
    containers: str = "http://containers:2375"
    """The filter in front of Docker's socket: see manyeyes/render/docker_socket_filter.py."""
