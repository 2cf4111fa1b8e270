"""Checks the addresses, URLs and secret files of registrations, because the controller and the gateway connect to them.

The resolved address is checked: every spelling of an address (0x7f000001, 127.1) resolves to the same address.
"""

import asyncio
import re
import socket
import ssl
from collections.abc import Set
from ipaddress import IPv6Address, ip_address
from urllib.parse import urlsplit

import httpx

from manyeyes.config.checkout import PAGE_KEY
from manyeyes.config.fields import host_problem, parse_address
from manyeyes.controller.bounded import RequestFailed, bounded_request
from manyeyes.controller.config_sync.effective_config import EffectiveConfig
from manyeyes.controller.registry.middleware import ADMIN_KEY_FILE as ADMIN_KEY
from manyeyes.controller.settings import ControllerSettings
from manyeyes.netpolicy import Address, deny_registration, embedded_ipv4
from manyeyes.openai_error import ApiError

RESOLVE_TIMEOUT_S = 5
PARTS = frozenset(
    {
        *("localhost", "controller", "gateway", "adapter", "webui", "prometheus", "grafana", "nginx-exporter"),
        *("containers", "loadtest", "media", "alertmanager", "node-exporter", "dcgm-exporter"),
    }
)
"""Host names of the cluster's own services. They include localhost, except where loopback addresses are allowed."""


class RegistrationChecks:
    """Raises ApiError when an address, a URL or a file of the secrets folder is not allowed in a registration."""

    def __init__(self, settings: ControllerSettings, effective: EffectiveConfig) -> None:
        self.settings = settings
        self.effective = effective

    async def check_address(self, host: str, port: int, param: str) -> None:
        if not 1 <= port <= 65535:
            raise ApiError(422, "invalid_request", f"{param}: expected a port from 1 to 65535, got {port}.", param)
        cluster = self.effective.cluster
        rules = cluster.controller
        if host.lower().rstrip(".") in PARTS - ({"localhost"} if rules.register_loopback else set()):
            raise _refused(host, "is a part of this cluster, not an engine", param)
        addresses = await _resolve(host, port)
        if not addresses:
            raise ApiError(
                422,
                "address_unknown",
                f"The controller cannot resolve the name '{host[:100]}'. Start the engine first, or give its address.",
                param,
            )
        parts = {
            ip_address(str(cluster.network.controller_ip)),
            *await _resolve("gateway", 80),
            *await _resolve("controller", 80),
            # In a container: this controller's addresses in all networks.
            *await _resolve(socket.gethostname(), 80),
        }
        # The engines in containers. Registered a second time, an engine would get twice its share.
        engines = {engine.name for engine in cluster.engines if engine.address is None}
        for address in addresses:
            inner = _plain(address)
            container = "" if inner.is_loopback else await _container_of(inner, cluster.name, PARTS | engines)
            if container in engines:
                raise _refused(_shown(host, address), f"is the engine {container} of this cluster already", param)
            if container or (inner in parts and not inner.is_loopback):
                raise _refused(_shown(host, address), "is a part of this cluster, not an engine", param)
            if self._is_own(inner, port):
                raise _refused(_shown(host, address), "is this cluster's own controller or gateway", param)
            if reason := deny_registration(address, rules.register_loopback, rules.register_private):
                raise _refused(_shown(host, address), reason, param)
        if parse_address(host) is None and (why := host_problem(host)):
            written = f"; write it as {addresses.pop()}" if len(addresses) == 1 else ""
            raise ApiError(422, "invalid_request", f"{param}: '{host[:100]}' {why}{written}.", param)

    async def check_url(self, url: str, param: str) -> None:
        parts = urlsplit(url)
        try:
            port = parts.port or (443 if parts.scheme == "https" else 80)
        except ValueError:
            raise ApiError(422, "invalid_request", f"{param}: expected a port from 1 to 65535.", param) from None
        await self.check_address(parts.hostname or "", port, param)

    async def check_secret(self, name: str, param: str, authority: bool = False) -> None:
        """Checks a file of the secrets folder.

        `authority`: the file has CA certificates, which nginx reads at startup.
        """
        tls = self.effective.cluster.gateway.tls
        if name in (ADMIN_KEY, PAGE_KEY) or (tls and name == tls.key):
            raise ApiError(
                403,
                "secret_not_allowed",
                f"secrets/{name} belongs to the cluster, so it is never sent to an endpoint.",
                param,
            )
        try:
            # In a thread: a hanging disk must not block DNS.
            text = await asyncio.to_thread((self.settings.secrets / name).read_text, encoding="utf-8")
        except FileNotFoundError:
            raise _wrong(name, "does not exist. Create it first", param) from None
        except (OSError, UnicodeDecodeError) as error:
            raise _wrong(
                name, f"cannot be read ({type(error).__name__}); `make doctor` shows how to make it readable", param
            ) from error
        if authority:
            try:
                ssl.create_default_context(cadata=text)
            except (ssl.SSLError, ValueError) as error:
                raise _wrong(name, "has no PEM certificates", param) from error
        elif not text.strip() or len(text.strip().splitlines()) != 1 or not text.strip().isascii():
            raise _wrong(name, "must have exactly one line with the key, in ASCII", param)

    def _is_own(self, address: Address, port: int) -> bool:
        """Whether this controller or the gateway listens at the address."""
        own = (self.settings.http_port, self.settings.dns_port, self.settings.syslog_port)
        on_this_host = address.is_loopback or str(address) == self.settings.host
        return on_this_host and port in (*own, self.effective.cluster.gateway.port)


async def can_resolve(host: str) -> bool:
    return bool(await _resolve(host, 80))


async def _resolve(host: str, port: int) -> set[Address]:
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(RESOLVE_TIMEOUT_S):
            entries = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, ValueError, OverflowError):
        return set()
    return {ip_address(str(entry[4][0]).partition("%")[0]) for entry in entries}


def _plain(address: Address) -> Address:
    """An IPv4 address also for its spellings in IPv6."""
    return (embedded_ipv4(address) if isinstance(address, IPv6Address) else None) or address


async def _container_of(address: Address, project: str, services: Set[str]) -> str:
    """The one of `services` whose container has the address in any network, by its name in Docker's DNS; or "".

    A service has one address in each of its networks, and its own name resolves to only one of them.
    """
    try:
        async with asyncio.timeout(RESOLVE_TIMEOUT_S):
            name, _ = await asyncio.to_thread(socket.getnameinfo, (str(address), 0), socket.NI_NAMEREQD)
    except OSError:  # TimeoutError is one
        return ""
    # manyeyes-gateway-1.manyeyes_front in Compose, manyeyes_gateway.1.ID.manyeyes_cluster in Swarm
    rest = name.removeprefix(project)
    found = [service for service in services if re.match(rf"[-_]{re.escape(service)}[-.]\d", rest)]
    return found[0] if found and rest != name else ""


def _shown(host: str, address: Address) -> str:
    return host if host == str(address) else f"{host[:100]} ({address})"


def _refused(target: str, reason: str, param: str) -> ApiError:
    return ApiError(403, "address_not_allowed", f"{target} {reason}; nothing can be registered there.", param)


def _wrong(name: str, why: str, param: str) -> ApiError:
    return ApiError(422, "secret_file_unusable", f"secrets/{name} {why}.", param)


MODELS_TIMEOUT_S = 3.0
MAX_BYTES = 1 << 20


async def fetch_model_names(address: str) -> set[str] | None:
    """The ids in the engine's /v1/models; None when it does not list them."""
    # Plain HTTP only: loading the system's certificates would block the event loop for a moment.
    async with httpx.AsyncClient(trust_env=False, verify=False) as client:
        try:
            url = f"http://{address}/v1/models"
            reply = await bounded_request(client, "GET", url, MODELS_TIMEOUT_S, max_bytes=MAX_BYTES)
            return {str(model["id"]) for model in reply.json()["data"]} if reply.status == 200 else None
        except (RequestFailed, ValueError, LookupError, TypeError):
            return None


def missing_names_notice(expected: list[str], served: set[str] | None) -> str:
    """A warning about `expected` names that the engine does not serve; empty when there are none or it is unknown."""
    missing = [] if served is None else [name for name in expected if name not in served]
    if not missing:
        return ""
    return (
        f"The engine does not serve {', '.join(missing)}, so requests with such a `model` fail with 404. "
        f"Start it with --served-model-name {' '.join(expected)}."
    )
