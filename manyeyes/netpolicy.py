"""Decides to which addresses the cluster may connect when a client or the API supplies the host. Pure.

Callers resolve names and check the address to which they connect, because a name may resolve to the cloud's metadata
service, also only at its second lookup (DNS rebinding).
"""

from collections.abc import Mapping, Sequence
from enum import Enum
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

Address = IPv4Address | IPv6Address
METADATA_ADDRESSES = frozenset(
    ip_address(text)
    for text in (
        "100.100.100.200",  # Alibaba Cloud
        "168.63.129.16",  # Azure's host agent
        "192.0.0.192",  # Oracle Cloud
        "fd00:ec2::254",  # AWS over IPv6; 169.254.169.254 of AWS, Google and Azure is link-local
    )
)
NAT64 = ip_network("64:ff9b::/96")
PRIVATE_SUFFIXES = ("localhost", "local", "internal", "home.arpa", "lan", "home", "corp", "intranet", "private", "svc")
"""Suffixes of host names that are reserved for private use, or that the public DNS does not delegate. No stranger can
own a name there."""
PRIVATE_PORTS = (80, 443)
"""Allowed ports of media at private addresses. Other services of an internal network listen on other ports."""


class AddressKind(Enum):
    """Class of an address, for access decisions."""

    PUBLIC = "public"
    PRIVATE = "private"
    """Not global. Includes shared address space (RFC 6598), which Python counts neither as private nor as global."""
    LOOPBACK = "loopback"
    METADATA = "metadata"
    """Link-local, or a metadata service of a cloud, which may return secrets."""
    NO_HOST = "no_host"
    """Unspecified, multicast or reserved."""


def classify_address(address: Address) -> AddressKind:
    """Returns the class of an address. An IPv6 address with an embedded IPv4 address has the class of the latter."""
    if isinstance(address, IPv6Address) and (inner := embedded_ipv4(address)):
        return classify_address(inner)
    if address.is_unspecified or address.is_multicast or (isinstance(address, IPv4Address) and address.is_reserved):
        return AddressKind.NO_HOST
    if address.is_link_local or address in METADATA_ADDRESSES:
        return AddressKind.METADATA
    if address.is_loopback:
        return AddressKind.LOOPBACK
    return AddressKind.PUBLIC if address.is_global else AddressKind.PRIVATE


def embedded_ipv4(address: IPv6Address) -> IPv4Address | None:
    """Returns the IPv4 address embedded in an IPv6 address, or None."""
    if address in NAT64:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour


def deny_registration(address: Address, loopback_allowed: bool, private_allowed: bool) -> str:
    """Returns why no engine or endpoint may be registered at this address; empty if it is allowed."""
    kind = classify_address(address)
    if kind is AddressKind.NO_HOST:
        return "is not the address of a single host"
    if kind is AddressKind.METADATA:
        return "is link-local or a cloud's metadata service"
    if kind is AddressKind.LOOPBACK and not loopback_allowed:
        return "is loopback, which in the controller's container is the controller itself"
    if kind is AddressKind.PRIVATE and not private_allowed:
        return "is private, and controller.register_private is false"
    return ""


def deny_media_host(host: str, domains: Mapping[str, bool]) -> str:
    """Returns why engines may not fetch media from `host`; empty if they may. `domains`: {allowed host: may be
    private}."""
    return "" if host.lower().rstrip(".") in domains else f"{host[:100]} is not in media.allowed_domains"


def deny_media_addresses(addresses: Sequence[Address], port: int, private_allowed: bool) -> str:
    """Returns why engines may not fetch media from a host with these addresses; empty if all addresses are allowed."""
    if not addresses:
        return "the name does not resolve"
    return next((reason for address in addresses if (reason := _deny_media(address, port, private_allowed))), "")


def _deny_media(address: Address, port: int, private_allowed: bool) -> str:
    kind = classify_address(address)
    if kind is AddressKind.LOOPBACK:
        return f"{address} is loopback"
    if kind is AddressKind.METADATA:
        return f"{address} is link-local or a cloud's metadata service"
    if kind is AddressKind.NO_HOST:
        return f"{address} is not the address of a single host"
    if kind is AddressKind.PRIVATE and not private_allowed:
        return f"{address} is private, and media.allow_private is false"
    if kind is AddressKind.PRIVATE and port not in PRIVATE_PORTS:
        return f"{address} is private, and port {port} is neither 80 nor 443"
    return ""
