"""What sections of cluster.yaml are made of: their base, kinds of names, and hosts with their addresses.

A system's own functions take much more for an address: 10.1, 010.0.0.7, 0x7f000001 and 1 all lead somewhere, and rarely where the
reader thinks. Here an address is what Python's ipaddress takes, and any other host is a name.
"""

import asyncio
import re
import socket
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints


class Section(BaseModel):
    """Frozen, and an unknown key is an error: a new file makes a new Cluster."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?$")]
"""A DNS label of at most 40 characters: names become host names, metric labels and nginx upstreams."""

ModelAlias = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/:@-]{0,127}$")]
"""What a client may write in `model`."""

ServedModel = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9@][A-Za-z0-9._/:@+-]{0,199}$")]
"""A Hugging Face id, or a model's name at an endpoint elsewhere: clients may write it in `model`."""

LONGEST_S = 31_536_000
"""A year: nginx refuses times without end."""

ImageReference = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-zA-Z0-9._/:@-]+$")]
"""A container image with its tag or digest."""

FileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
"""Without a folder: of a file in the secrets folder, or beside the configuration."""

Port = Annotated[int, Field(ge=1, le=65535)]


Address = IPv4Address | IPv6Address
MOST_PORT = 65_535
_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_NUMBER = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*")


class LookupFailed(OSError):
    """The host has no address here; the message says why."""


class ResolverUnavailable(LookupFailed):
    """Nobody could be asked, so nothing is known of the name."""


def parse_address(host: str) -> Address | None:
    """The address that `host` is written as; None for a name, and for any odd way of writing an address. Pure."""
    try:
        found = ip_address(host)
    except ValueError:
        return None
    return None if isinstance(found, IPv6Address) and found.scope_id else found


def host_problem(host: str) -> str:
    """Why `host` is neither an address nor a name that can be looked up; empty when it is one of them. Pure."""
    if parse_address(host) is not None:
        return ""
    labels = host.removesuffix(".").split(".")
    if _NUMBER.fullmatch(labels[-1]):
        return "is not an address in its usual form, such as 10.0.0.7"
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        return "is not a host name: parts of 1 to 63 letters, digits and hyphens with one dot between them"
    return ""


def port_problem(port: str) -> str:
    """Why it is no port; empty when it is one. Pure."""
    is_port = port.isascii() and port.isdecimal() and len(port) <= 5 and 1 <= int(port) <= MOST_PORT
    return "" if is_port else "is not a port from 1 to 65535"


def _checked_address(text: str) -> str:
    host, _, port = text.rpartition(":")
    if why := host_problem(host):
        raise ValueError(f"an address such as host:8000 or 10.0.0.7:8000 ('{host[:100]}' {why})")
    if why := port_problem(port):
        raise ValueError(f"an address such as host:8000 ('{port}' {why})")
    return text


def _checked_url(text: str) -> str:
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise ValueError("a URL such as https://api.example.com:8000 with a port from 1 to 65535") from None
    if why := host_problem(host):
        raise ValueError(f"a URL such as https://api.example.com ('{host[:100]}' {why})")
    if port == 0:
        raise ValueError("a URL such as https://api.example.com:8000 with a port from 1 to 65535")
    return text


def _checked_host(text: str) -> str:
    if why := host_problem(text):
        raise ValueError(f"a host such as pictures.example.com, without https:// and path ('{text[:100]}' {why})")
    return text


def _checked_domain(text: str) -> str:
    if len(text) > 150 or not all(_LABEL.fullmatch(label) for label in text.split(".")):
        raise ValueError("a domain such as manyeyes.internal, of at most 150 characters")
    return text


def _text(value: Any) -> Any:
    if isinstance(value, int | bytes):
        raise ValueError("an address such as 10.0.0.7, or with its size 10.0.0.0/24")  # 1 would be 0.0.0.1
    return value


IsWritten = BeforeValidator(_text)
"""For addresses and networks: an address is a text, not a number."""
IsAddress = AfterValidator(_checked_address)
"""host:port."""
IsUrl = AfterValidator(_checked_url)
IsHost = AfterValidator(_checked_host)
IsDomain = AfterValidator(_checked_domain)
Host = Annotated[str, IsHost]


async def resolve_host(host: str, port: int, family: socket.AddressFamily = socket.AF_UNSPEC) -> list[Address]:
    """Every address of a host, at least one. Raises LookupFailed, and ResolverUnavailable where nobody could be asked; nothing else."""
    if (written := parse_address(host)) is not None:
        if family == socket.AF_INET and written.version != 4:
            raise LookupFailed(f"{host} is not an IPv4 address")
        return [written]
    if why := host_problem(host):
        raise LookupFailed(f"{host[:100]!r} {why}")
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM)
        addresses = [ip_address(str(one[4][0]).partition("%")[0]) for one in found]
    except socket.gaierror as error:
        if error.errno in (socket.EAI_AGAIN, socket.EAI_FAIL, socket.EAI_SYSTEM):
            raise ResolverUnavailable(f"the name {host} could not be looked up") from error
        raise LookupFailed(f"the name {host} does not resolve") from error
    except (OSError, ValueError, OverflowError) as error:  # UnicodeError is a ValueError
        raise LookupFailed(f"the name {host} does not resolve") from error
    if not addresses:
        raise LookupFailed(f"the name {host} does not resolve")
    return list(dict.fromkeys(addresses))
