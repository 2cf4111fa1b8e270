"""Defines the names, addresses, ports and folders in nginx's rendered files.

The defaults are those of the containers.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class PoolNaming:
    """Names of renamed pools. All mappings are empty if no pool was renamed."""

    upstreams: Mapping[str, str] = field(default_factory=dict)
    """Pool -> its name in nginx's upstreams and in DNS, if that differs. Renaming the pool does not change it, so that
    nginx preserves the pool's members, conversations and counters."""
    requested_names: Mapping[str, str] = field(default_factory=dict)
    """Pool -> the `model` in requests to its engines, if they do not accept all of the pool's names."""
    former: Mapping[str, str] = field(default_factory=dict)
    """Former name of a pool -> the pool, while requests for that name are accepted."""
    until_s: float | None = None
    """Time at which this naming expires, in seconds since 1970; None if it does not expire."""

    def upstream(self, pool: str) -> str:
        return self.upstreams.get(pool, pool)


AS_WRITTEN = PoolNaming()


@dataclass(frozen=True)
class NginxPaths:
    """Addresses, ports and folders that the rendered files of nginx name."""

    controller: str = ""
    """The controller's address; empty: network.controller_ip."""
    controller_dns_port: int = 5353
    controller_http_port: int = 8081
    controller_syslog_port: int = 5140
    outside_resolver: str = "127.0.0.11"
    """Docker's DNS, for names outside the cluster; with a port if it is not 53."""
    members_of: str = ""
    """Set if an orchestrator decides membership: the DNS name of a pool's engines, with {} for the pool, and their
    port. On Kubernetes the headless Service's name, {}.manyeyes.svc.cluster.local:8000; on Swarm tasks.{}:8000. Empty:
    the controller's SRV records."""
    service_suffix: str = ""
    """Suffix of the names of services next to the gateway, such as webui."""
    resolver: str = ""
    """DNS server for the members of pools; empty: the controller."""
    listen: str = "8080"
    """Address at which clients reach the gateway, as in nginx's `listen`."""
    secrets: str = "/run/secrets/manyeyes"
    """The secrets folder."""
    pages: tuple[str, ...] = ("webui:7860",)
    """Addresses of the page. In containers all copies have the same name."""
    caches: str = "/tmp"
    """Folder of the response caches."""

    def members(self, pool: str, domain: str) -> str:
        """Value of nginx's `server` for a pool's engines; `domain` is the controller's."""
        return self._service_address(pool) if self.members_of else f"{pool}.pool.{domain} service=http"

    def members_by_capacity(self, pool: str, capacity: int, domain: str) -> str:
        """As members(), for the engines that take `capacity` requests at a time."""
        # The name of a Service cannot contain dots.
        return (
            self._service_address(f"{pool}-c{capacity}")
            if self.members_of
            else f"c{capacity}.{pool}.pool.{domain} service=http"
        )

    def _service_address(self, service: str) -> str:
        """Uses addresses, not the SRV records that Kubernetes also has.

        CoreDNS divides a weight of 100 among the pods, so every pod that comes or goes changes all weights. nginx
        treats an engine with another weight as another engine and loses its count of requests in flight. All engines
        have the same port, and one query returns all addresses, where SRV needs a query for each.
        """
        return self.members_of.format(service)


CONTAINER_PATHS = NginxPaths()
