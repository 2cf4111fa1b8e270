"""The controller's environment, read once."""

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Settings:
    """Where to read and where to listen."""

    config: Path
    """cluster.yaml."""
    inventory: Path
    """What the host has, as `make up` found it."""
    state: Path
    """What outlives a restart: see controller/kept.py."""
    secrets: Path
    """The secrets folder, read only."""
    adapter_name: str
    """Under which host name engines with an `endpoint` are reached."""
    host: str
    http_port: int
    dns_port: int
    syslog_port: int
    """UDP, for the gateway's request log."""

    @classmethod
    def from_environment(cls) -> "Settings":
        return cls(
            config=Path(os.environ.get("MANYEYES_CONFIG", "config/cluster.yaml")),
            inventory=Path(os.environ.get("MANYEYES_INVENTORY", "rendered/default/inventory.yaml")),
            state=Path(os.environ.get("MANYEYES_STATE", "build/state")),
            secrets=Path(os.environ.get("MANYEYES_SECRETS", "secrets")),
            adapter_name=os.environ.get("MANYEYES_ADAPTER_NAME", "adapter"),
            host=os.environ.get("MANYEYES_CONTROLLER_HOST", "0.0.0.0"),
            http_port=int(os.environ.get("MANYEYES_CONTROLLER_HTTP_PORT", "8081")),
            dns_port=int(os.environ.get("MANYEYES_CONTROLLER_DNS_PORT", "5353")),
            syslog_port=int(os.environ.get("MANYEYES_CONTROLLER_SYSLOG_PORT", "5140")),
        )
