"""Says from where the gateway can be reached, and how to open it to the network. For `make up` and `make doctor`."""

from pathlib import Path

from manyeyes.cli import host_info
from manyeyes.cli.invocation import next_command
from manyeyes.config.cluster import Cluster
from manyeyes.config.credentials import ApiKeys
from manyeyes.config.fields import parse_address

PAST_UFW = "Docker's published ports pass ufw"


def public_urls(cluster: Cluster) -> list[str]:
    """The URLs that other hosts use; empty if only this host can connect."""
    gateway = cluster.gateway
    if not gateway.is_open:
        return []
    hosts = [host for host in host_info.addresses() if ":" not in host] if gateway.host.is_unspecified else []
    scheme = "https" if gateway.tls else "http"
    # The addresses of Docker's bridges are this host's too, and of no use to others.
    hosts = [host for host in hosts if host not in host_info.bridge_addresses()] or [str(gateway.host)]
    return [f"{scheme}://{host}:{gateway.port}" for host in hosts if parse_address(host)]


def steps_to_open(config: Path) -> list[str]:
    """What an operator does so that other hosts can connect."""
    return [
        next_command("key", "NAME", config=config),
        f"set gateway.host: 0.0.0.0 in {config}",
        next_command("up", config=config),
    ]


def describe_access(cluster: Cluster, keys: ApiKeys, config: Path) -> str:
    """One line for the table of `make doctor`."""
    if not (urls := public_urls(cluster)):
        return f"this host only (to open it: {', then '.join(steps_to_open(config))}; {PAST_UFW})"
    required = "a key is required" if cluster.gateway.requires_key(keys) else "no key is required"
    return f"{', '.join(urls)}: {required}; {PAST_UFW}"


def exposure_warnings(cluster: Cluster, keys: ApiKeys, config: Path) -> list[str]:
    """What an operator should know who opened the gateway to the network."""
    if not cluster.gateway.is_open:
        return []
    warnings = []
    if not cluster.gateway.requires_key(keys):
        warnings.append("everyone who reaches this host can use the models: gateway.anonymous is true")
    elif not keys.keys:
        create = next_command("key", "NAME", config=config)
        warnings.append(f"every request is refused until there is a key: {create} (or set gateway.anonymous: true)")
    if cluster.gateway.tls is None:
        warnings.append("keys, images and answers cross the network unencrypted: `gateway: {tls: {}}` encrypts them")
    return warnings
