"""Field types of cluster.yaml: the base class of its sections, names, hosts and addresses.

The system's resolver also accepts 10.1, 010.0.0.7, 0x7f000001 and 1 as addresses, often with a surprising result. Here
an address is what Python's `ipaddress` accepts. Any other host is a name.
"""

import asyncio
import re
import socket
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints


class Section(BaseModel):
    """Base of all sections. Sections are frozen and reject unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?$")]
"""A DNS label of at most 40 characters. Names are used as host names, metric labels and nginx upstreams."""

ModelAlias = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/:@-]{0,127}$")]
"""A model name that a client may send in `model`."""

ServedModel = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9@][A-Za-z0-9._/:@+-]{0,199}$")]
"""A Hugging Face id, or the name of a model at an external endpoint. Clients may send it in `model`."""

MAX_DURATION_S = 31_536_000
"""One year, because nginx rejects times without a limit."""

ImageReference = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-zA-Z0-9._/:@-]+$")]
"""A container image with a tag or a digest."""

FileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
"""A file name without a folder, for a file in the secrets folder or in the folder of the configuration."""

VOLUME = r"^(/[^\x00-\x1f\x7f\"'`$:#\\]*|[a-zA-Z0-9][a-zA-Z0-9_.-]*)$"
"""A Docker volume, or an absolute path, without the characters that Compose interprets in mounts and compose.env."""

Port = Annotated[int, Field(ge=1, le=65535)]


Address = IPv4Address | IPv6Address
MAX_PORT = 65_535
_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_NUMBER = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*")


class LookupFailed(OSError):
    """The host has no address; the message gives the reason."""


class ResolverUnavailable(LookupFailed):
    """No DNS server answered, so it is not known whether the name exists."""


def parse_address(host: str) -> Address | None:
    """Returns the address in `host`; None for a name or a non-standard notation of an address. Pure."""
    try:
        address = ip_address(host)
    except ValueError:
        return None
    return None if isinstance(address, IPv6Address) and address.scope_id else address


def host_problem(host: str) -> str:
    """Returns why `host` is neither an address nor a valid host name; empty if it is valid. Pure."""
    if parse_address(host) is not None:
        return ""
    labels = host.removesuffix(".").split(".")
    if _NUMBER.fullmatch(labels[-1]):
        return "is not an address in its usual form, such as 10.0.0.7"
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        return "is not a host name: labels of 1 to 63 letters, digits and hyphens, separated by single dots"
    return ""


def port_problem(port: str) -> str:
    """Returns why `port` is not a port; empty if it is valid. Pure."""
    is_port = port.isascii() and port.isdecimal() and len(port) <= 5 and 1 <= int(port) <= MAX_PORT
    return "" if is_port else "is not a port from 1 to 65535"


def _check_address(text: str) -> str:
    host, _, port = text.rpartition(":")
    if problem := host_problem(host):
        raise ValueError(f"an address such as host:8000 or 10.0.0.7:8000 ('{host[:100]}' {problem})")
    if problem := port_problem(port):
        raise ValueError(f"an address such as host:8000 ('{port}' {problem})")
    return text


def _check_url(text: str) -> str:
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise ValueError("a URL such as https://api.example.com:8000 with a port from 1 to 65535") from None
    if problem := host_problem(host):
        raise ValueError(f"a URL such as https://api.example.com ('{host[:100]}' {problem})")
    if port == 0:
        raise ValueError("a URL such as https://api.example.com:8000 with a port from 1 to 65535")
    return text


def _check_host(text: str) -> str:
    if problem := host_problem(text):
        raise ValueError(f"a host such as images.example.com, without https:// and path ('{text[:100]}' {problem})")
    return text


def _check_domain(text: str) -> str:
    if len(text) > 150 or not all(_LABEL.fullmatch(label) for label in text.split(".")):
        raise ValueError("a domain such as manyeyes.internal, of at most 150 characters")
    return text


def _text(value: Any) -> Any:
    if isinstance(value, int | bytes):
        raise ValueError("an address such as 10.0.0.7 or a network such as 10.0.0.0/24")  # 1 would become 0.0.0.1
    return value


IsText = BeforeValidator(_text)
"""Rejects numbers as addresses and networks."""
IsAddress = AfterValidator(_check_address)
"""Checks host:port."""
IsUrl = AfterValidator(_check_url)
IsHost = AfterValidator(_check_host)
IsDomain = AfterValidator(_check_domain)
Host = Annotated[str, IsHost]


async def resolve_host(host: str, port: int, family: socket.AddressFamily = socket.AF_UNSPEC) -> list[Address]:
    """Returns all addresses of a host, at least one. Raises LookupFailed, or ResolverUnavailable if no DNS server
    answers."""
    if (literal := parse_address(host)) is not None:
        if family == socket.AF_INET and literal.version != 4:
            raise LookupFailed(f"{host} is not an IPv4 address")
        return [literal]
    if problem := host_problem(host):
        raise LookupFailed(f"{host[:100]!r} {problem}")
    try:
        entries = await asyncio.get_running_loop().getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM)
        addresses = [ip_address(str(entry[4][0]).partition("%")[0]) for entry in entries]
    except socket.gaierror as error:
        if error.errno in (socket.EAI_AGAIN, socket.EAI_FAIL, socket.EAI_SYSTEM):
            raise ResolverUnavailable(f"the name {host} could not be looked up") from error
        raise LookupFailed(f"the name {host} does not resolve") from error
    except (OSError, ValueError, OverflowError) as error:  # UnicodeError is a ValueError
        raise LookupFailed(f"the name {host} does not resolve") from error
    if not addresses:
        raise LookupFailed(f"the name {host} does not resolve")
    return list(dict.fromkeys(addresses))
