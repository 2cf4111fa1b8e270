"""May an engine connect there? Pure.

vLLM compares a URL's host with its list and then lets the system look the name up: a name that is allowed may lead to the
cloud's metadata service today, or at its second lookup (DNS rebinding). So what is judged here is the very address that is connected to.
"""

from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address

from manyeyes.controller.registry.addresses import METADATA, Address, meant

PRIVATE_PORTS = (80, 443)
"""At private addresses: the services of an inner network listen on all others."""


def host_refused(host: str, domains: Mapping[str, bool]) -> str:
    """Why nothing may be asked of `host`; empty when it may."""
    return "" if host.lower().rstrip(".") in domains else f"{host[:100]} is not in media.allowed_domains"


def addresses_refused(addresses: Sequence[Address], port: int, private_allowed: bool) -> str:
    """Why none of these may be connected to; one bad address among good ones refuses all."""
    if not addresses:
        return "the name does not resolve"
    return next((why for address in addresses if (why := _refused(address, port, private_allowed))), "")


def _refused(address: Address, port: int, private_allowed: bool) -> str:
    if isinstance(address, IPv6Address) and (inner := meant(address)):
        return _refused(inner, port, private_allowed)
    if address.is_loopback or address.is_unspecified:
        return f"{address} is loopback"
    if address.is_link_local or address in METADATA:
        return f"{address} is link-local or a cloud's metadata service"
    if address.is_multicast or (isinstance(address, IPv4Address) and address.is_reserved):
        return f"{address} is no address of one machine"
    if not address.is_global:
        if not private_allowed:
            return f"{address} is private, and media.allow_private is false"
        if port not in PRIVATE_PORTS:
            return f"{address} is private, and port {port} is neither 80 nor 443"
    return ""
