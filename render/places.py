"""Where the gateway finds the rest of the cluster and its own files. The defaults are those of the containers."""

from dataclasses import dataclass

from config.engines import ENGINE_PORT


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
    services: str = ""
    """On Kubernetes: the domain of the Services, such as manyeyes.svc.cluster.local, whose DNS tells who is in a pool. Empty: the
    controller tells it."""
    resolver: str = ""
    """Who answers for pools; empty: the controller."""
    listen: str = "8080"
    """Where the world reaches the gateway, as nginx's `listen` takes it."""
    secrets: str = "/run/secrets/manyeyes"
    """The secrets folder."""
    caches: str = "/tmp"
    """Where answers of pools with a cache are kept."""

    def members(self, pool: str, domain: str) -> str:
        """What nginx's `server` names for a pool's engines; `domain` is the controller's."""
        return self._of_service(pool) if self.services else f"{pool}.pool.{domain} service=http"

    def members_by_capacity(self, pool: str, most: int, domain: str) -> str:
        """Those of its engines that take `most` requests at a time."""
        # The name of a Service has no dots.
        return self._of_service(f"{pool}-c{most}") if self.services else f"c{most}.{pool}.pool.{domain} service=http"

    def _of_service(self, service: str) -> str:
        """By the addresses of a headless Service, not by its SRV records: CoreDNS parts a weight of 100 among the pods, so each
        that comes or goes changes all weights, and nginx takes an engine with another weight for another engine: it forgets what
        it has in flight. All pods have the same port; and one question tells all addresses, where SRV takes one for each."""
        return f"{service}.{self.services}:{ENGINE_PORT}"

    @property
    def beside(self) -> str:
        """What follows the name of a part beside the gateway, such as webui."""
        return f".{self.services}" if self.services else ""


CONTAINERS = Places()
