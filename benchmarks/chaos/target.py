"""The running cluster that faults are for, and whether they may be done to it."""

from dataclasses import dataclass
from pathlib import Path

from benchmarks.chaos.containers import Containers
from loadtest.gateway_client import GatewayClient
from loadtest.http_client import parse_target as address_of
from loadtest.virtual_user import RequestSettings
from manyeyes.cli import certificate, host_info
from manyeyes.cli import gateway_client as own_gateway
from manyeyes.config.cluster import Cluster
from manyeyes.config.loader import load


class Unfit(Exception):
    """Nothing was done; one sentence says why and what to do next."""


@dataclass(frozen=True)
class Target:
    """`engines`: who is up when all is well."""

    cluster: Cluster
    containers: Containers
    gateway: GatewayClient
    asked: RequestSettings
    engines: frozenset[str]
    emulated: bool


def find(config: Path, key: str, model: str, confirmed: bool) -> Target:
    """Raises Unfit, ConfigError, and Unusable where the gateway gives no answer."""
    cluster = load(config)
    containers = Containers(cluster.name)
    if not host_info.docker().server or "gateway" not in {part.service for part in containers.parts()}:
        raise Unfit(f"the cluster '{cluster.name}' does not run: make up")
    emulated = containers.flavours() == {"emulated"}
    if not emulated and not confirmed:
        flavours = ", ".join(sorted(containers.flavours())) or "other"
        raise Unfit(
            f"'{cluster.name}' has {flavours} engines, and its users would feel this: CONFIRM=yes if you mean it"
        )
    trusted = str(certificate.path(cluster) or "")
    gateway = GatewayClient(own_gateway.address(cluster), key, trusted)
    chosen = gateway.ready(model)
    if not (engines := frozenset(gateway.up())):
        raise Unfit("no engine is up: make status")
    asked = RequestSettings(to=address_of(gateway.base), model=chosen, key=key, trusted=trusted)
    return Target(cluster, containers, gateway, asked, engines, emulated)
