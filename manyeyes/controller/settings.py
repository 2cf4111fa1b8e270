"""Reads the controller's settings from environment variables."""

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from manyeyes.render.nginx.naming import NginxPaths


class ControllerSettings(BaseSettings):
    """Paths and ports. A field's variable is MANYEYES_ and the field's name, unless an alias is given."""

    model_config = SettingsConfigDict(env_prefix="MANYEYES_", env_ignore_empty=True, frozen=True)

    config: Path = Path("config/cluster.yaml")
    """cluster.yaml."""
    inventory: Path = Path("compose/rendered/default/inventory.yaml")
    """The host's inventory (GPUs, memory), as `make up` detected it."""
    state: Path = Path("build/state")
    """The folder for persisted state: see manyeyes/controller/state_store.py."""
    nginx_config_dir: Path = Path("build/offered")
    """The folder to which nginx's files are published: see manyeyes/controller/config_sync/nginx_publisher.py."""
    nginx_paths: NginxPaths = NginxPaths()
    """The paths that nginx's files refer to, in JSON."""
    gateway: str = Field("http://gateway:8088", validation_alias="MANYEYES_GATEWAY_INTERNAL_URL")
    """The gateway's internal URL, which reports the generation of files that nginx runs."""
    secrets: Path = Path("secrets")
    """The secrets folder, which is read-only."""
    adapter_name: str = "adapter"
    """The host name of the adapter, under which engines with an `endpoint` are reached."""
    services: str = ""
    """On Kubernetes and Swarm: the Service's name, with {} for the pool, and the port. The engines of a pool are found
    under this name (manyeyes/controller/membership/service_discovery.py). Elsewhere empty."""
    resolver: str = ""
    """The DNS server that resolves Service names, as address:port. Empty: the system's resolver."""
    host: str = Field("0.0.0.0", validation_alias="MANYEYES_CONTROLLER_HOST")
    internal_host: str = Field(
        default_factory=lambda data: str(data["host"]), validation_alias="MANYEYES_CONTROLLER_INTERNAL_HOST"
    )
    """Listen address for DNS and the gateway's log, in a network with only the engines, the gateway and Prometheus."""
    http_port: int = Field(8081, validation_alias="MANYEYES_CONTROLLER_HTTP_PORT")
    dns_port: int = Field(5353, validation_alias="MANYEYES_CONTROLLER_DNS_PORT")
    syslog_port: int = Field(5140, validation_alias="MANYEYES_CONTROLLER_SYSLOG_PORT")
    """UDP, for the gateway's request log."""
    log_senders: str = ""
    """Host name of the gateway. Only its addresses may send the request log. Empty: any address may, where the network
    allows only the gateway (Kubernetes)."""
    containers: str = "http://containers:2375"
    """URL of the filter in front of Docker's socket: see manyeyes/render/docker_socket_filter.py."""
