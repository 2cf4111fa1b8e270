"""Names, addresses, ports and folders in nginx's rendered files. The defaults are those of the containers."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class PoolNaming:
    """Empty where no pool was renamed."""

    upstreams: Mapping[str, str] = field(default_factory=dict)
    """Pool -> its name in nginx's upstreams and in DNS, where that is another one. It stays when the pool gets another name, so that
    nginx keeps the pool's members, its conversations and its counts."""
    asked: Mapping[str, str] = field(default_factory=dict)
    """Pool -> the `model` that its engines are asked by, where they do not accept all of the pool's names."""
    former: Mapping[str, str] = field(default_factory=dict)
    """A name that a pool had before -> the pool, for as long as it is answered."""
    until_s: float | None = None
    """When this changes by itself, in seconds since 1970; None where it does not."""

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
    """Docker's own DNS, for names outside the cluster; with a port where it is not 53."""
    members_of: str = ""
    """Where others than the controller say who is in a pool: the name whose addresses are its engines', with {} for the pool, and their
    port. On Kubernetes the headless Service's, {}.manyeyes.svc.cluster.local:8000; on Swarm tasks.{}:8000. Empty: the controller's
    SRV records."""
    beside: str = ""
    """What follows the name of a part beside the gateway, such as webui."""
    resolver: str = ""
    """Who answers for pools; empty: the controller."""
    listen: str = "8080"
    """Where the world reaches the gateway, as nginx's `listen` takes it."""
    secrets: str = "/run/secrets/manyeyes"
    """The secrets folder."""
    pages: tuple[str, ...] = ("webui:7860",)
    """Where the page is. In containers all copies have the one name."""
    caches: str = "/tmp"
    """Where answers of pools with a cache are kept."""

    def members(self, pool: str, domain: str) -> str:
        """What nginx's `server` names for a pool's engines; `domain` is the controller's."""
        return self._of_others(pool) if self.members_of else f"{pool}.pool.{domain} service=http"

    def members_by_capacity(self, pool: str, most: int, domain: str) -> str:
        """Those of its engines that take `most` requests at a time."""
        # The name of a Service has no dots.
        return self._of_others(f"{pool}-c{most}") if self.members_of else f"c{most}.{pool}.pool.{domain} service=http"

    def _of_others(self, service: str) -> str:
        """By addresses, not by the SRV records that Kubernetes has too: CoreDNS parts a weight of 100 among the pods, so each that
        comes or goes changes all weights, and nginx takes an engine with another weight for another engine: it forgets what it has
        in flight. All engines have the same port; and one question tells all addresses, where SRV takes one for each."""
        return self.members_of.format(service)


CONTAINER_PATHS = NginxPaths()
