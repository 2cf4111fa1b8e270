"""Which addresses the cluster may connect to on somebody else's word. Pure: names are looked up elsewhere, and the very address that is
connected to is judged, because a name may lead to the cloud's metadata service today, or at its second lookup (DNS rebinding).
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
        "fd00:ec2::254",  # AWS by IPv6; its 169.254.169.254 is link-local, as Google's and Azure's
    )
)
NAT64 = ip_network("64:ff9b::/96")
PRIVATE_PORTS = (80, 443)
"""Of media at private addresses: the services of an inner network listen on all others."""


class AddressKind(Enum):
    """What an address is, as far as it matters to who may connect there."""

    PUBLIC = "public"
    PRIVATE = "private"
    """Anything that is not global: also shared address space (RFC 6598), which Python counts neither as private nor as global."""
    LOOPBACK = "loopback"
    METADATA = "metadata"
    """Link-local, or where clouds tell a machine its secrets."""
    NO_HOST = "no_host"
    """Unspecified, multicast or reserved."""


def classify_address(address: Address) -> AddressKind:
    """An IPv6 address that stands for an IPv4 one is what that one is."""
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
    """The IPv4 address that an IPv6 one stands for."""
    if address in NAT64:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour


def deny_registration(address: Address, loopback_allowed: bool, private_allowed: bool) -> str:
    """Why no engine or endpoint may be registered at this address; empty when it may."""
    kind = classify_address(address)
    if kind is AddressKind.NO_HOST:
        return "is no address of one machine"
    if kind is AddressKind.METADATA:
        return "is link-local or a cloud's metadata service"
    if kind is AddressKind.LOOPBACK and not loopback_allowed:
        return "is loopback, which in the controller's container is the controller itself"
    if kind is AddressKind.PRIVATE and not private_allowed:
        return "is private, and controller.register_private is false"
    return ""


def deny_media_host(host: str, domains: Mapping[str, bool]) -> str:
    """Why engines may fetch nothing from `host`; empty when they may. `domains`: the allowed ones, and whether they may be private."""
    return "" if host.lower().rstrip(".") in domains else f"{host[:100]} is not in media.allowed_domains"


def deny_media_addresses(addresses: Sequence[Address], port: int, private_allowed: bool) -> str:
    """Why engines may fetch from none of these; one bad address among good ones refuses all."""
    if not addresses:
        return "the name does not resolve"
    return next((why for address in addresses if (why := _deny_media(address, port, private_allowed))), "")


def _deny_media(address: Address, port: int, private_allowed: bool) -> str:
    kind = classify_address(address)
    if kind is AddressKind.LOOPBACK:
        return f"{address} is loopback"
    if kind is AddressKind.METADATA:
        return f"{address} is link-local or a cloud's metadata service"
    if kind is AddressKind.NO_HOST:
        return f"{address} is no address of one machine"
    if kind is AddressKind.PRIVATE and not private_allowed:
        return f"{address} is private, and media.allow_private is false"
    if kind is AddressKind.PRIVATE and port not in PRIVATE_PORTS:
        return f"{address} is private, and port {port} is neither 80 nor 443"
    return ""
