"""Where an engine or endpoint may be: the controller and the gateway will connect to what is registered.

Judged is what a name resolves to, and every way of writing an address (0x7f000001, 127.1) resolves to the same one.
"""

import asyncio
import socket
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

from manyeyes.config.cluster import Cluster
from manyeyes.config.hosts import address_of, wrong_host
from manyeyes.controller.registry.errors import Refusal
from manyeyes.netpolicy import Address, deny_registration

RESOLVE_TIMEOUT_S = 5
PARTS = frozenset(
    {
        *("localhost", "controller", "gateway", "adapter", "webui", "prometheus", "grafana", "nginx-exporter"),
        *("containers", "loadtest", "media", "alertmanager", "node-exporter", "dcgm-exporter"),
    }
)
"""Names of the cluster's own parts in its network. localhost is one of them, except where loopback is allowed."""


@dataclass(frozen=True)
class Own:
    """Where this controller itself listens, besides `network.controller_ip`."""

    host: str
    ports: tuple[int, ...]


async def check(host: str, port: int, cluster: Cluster, own: Own, param: str) -> None:
    """Raises Refusal where nothing may be registered at host:port."""
    if not 1 <= port <= 65535:
        raise Refusal(422, "invalid_request", f"{param} wants a port from 1 to 65535, found {port}.", param)
    if host.lower().rstrip(".") in PARTS - ({"localhost"} if cluster.controller.register_loopback else set()):
        raise _refused(host, "is a part of this cluster, not an engine", param)
    found = await _resolve(host, port)
    if not found:
        raise Refusal(
            422,
            "address_unknown",
            f"The name '{host[:100]}' does not resolve here. Start it first, or give its address.",
            param,
        )
    parts = {
        ip_address(str(cluster.network.controller_ip)),
        *await _resolve("gateway", 80),
        *await _resolve("controller", 80),
    }
    rules = cluster.controller
    for address in found:
        if address in parts - {ip_address("127.0.0.1")} or _is_own(address, port, cluster, own):
            raise _refused(_shown(host, address), "is this cluster's own controller or gateway", param)
        if reason := deny_registration(address, rules.register_loopback, rules.register_private):
            raise _refused(_shown(host, address), reason, param)
    if address_of(host) is None and (why := wrong_host(host)):
        written = f"; write it as {found.pop()}" if len(found) == 1 else ""
        raise Refusal(422, "invalid_request", f"{param}: '{host[:100]}' {why}{written}.", param)


def _is_own(address: Address, port: int, cluster: Cluster, own: Own) -> bool:
    on_this_host = address.is_loopback or str(address) == own.host
    return on_this_host and port in (*own.ports, cluster.gateway.port)


async def _resolve(host: str, port: int) -> set[Address]:
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(RESOLVE_TIMEOUT_S):
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, ValueError, OverflowError):
        return set()
    return {ip_address(str(one[4][0]).partition("%")[0]) for one in found}


def _shown(host: str, address: Address) -> str:
    return host if host == str(address) else f"{host[:100]} ({address})"


def _refused(what: str, reason: str, param: str) -> Refusal:
    return Refusal(403, "address_not_allowed", f"{what} {reason}; nothing can be registered there.", param)


async def check_url(url: str, cluster: Cluster, own: Own, param: str) -> None:
    """The same for a URL."""
    parts = urlsplit(url)
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        raise Refusal(422, "invalid_request", f"{param} wants a port from 1 to 65535.", param) from None
    await check(parts.hostname or "", port, cluster, own, param)


async def resolves(host: str) -> bool:
    return bool(await _resolve(host, 80))
