"""Where the gateway finds the rest of the cluster and its own files. The defaults are those of the containers."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Places:
    """Addresses, ports and folders that the rendered files of nginx name."""

    controller: str = ""
    """The controller's address; empty: network.controller_ip."""
    controller_dns_port: int = 5353
    controller_http_port: int = 8081
    controller_syslog_port: int = 5140
    outside_resolver: str = "127.0.0.11"
    """Docker's own DNS, for names outside the cluster; with a port where it is not 53."""
    listen: str = "8080"
    """Where the world reaches the gateway, as nginx's `listen` takes it."""
    secrets: str = "/run/secrets/manyeyes"
    """The secrets folder."""
    pages: tuple[str, ...] = ("webui:7860",)
    """Where the page is. In containers all copies have the one name."""
    caches: str = "/tmp"
    """Where answers of pools with a cache are kept."""


CONTAINERS = Places()
