"""HTTP proxy for engines. It resolves a host name once, checks the addresses, and connects to a checked address."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import structlog

from manyeyes.config.fields import LookupFailed, resolve_host
from manyeyes.netpolicy import Address, deny_media_addresses, deny_media_host


class InvalidProxyRequest(Exception):
    """A request that the proxy does not accept; the message is one clause."""


@dataclass(frozen=True)
class ProxyRequest:
    """`head`: the request for the origin; empty for CONNECT, where the client and the origin use TLS."""

    host: str
    port: int
    head: bytes


def parse_proxy_request(head: bytes) -> ProxyRequest:
    """Parses the head of a request. Raises InvalidProxyRequest."""
    try:
        line, _, rest = head.decode("ascii").partition("\r\n")
        method, target, version = line.split(" ")
    except ValueError:
        raise InvalidProxyRequest("the request line is not valid HTTP") from None
    if method == "CONNECT":
        host, colon, port = target.rpartition(":")
        if not colon or not port.isdigit() or len(port) > 5:
            raise InvalidProxyRequest("CONNECT requires host:port")
        return ProxyRequest(host.strip("[]"), _port(int(port)), b"")
    if method not in ("GET", "HEAD"):
        raise InvalidProxyRequest(f"the method {method[:10]} is not allowed")
    try:
        parts = urlsplit(target)
        host, origin_port = parts.hostname or "", parts.port or 80
    except ValueError:
        raise InvalidProxyRequest("the URL is malformed") from None
    if parts.scheme != "http" or not host or parts.username is not None:
        raise InvalidProxyRequest("expected a URL such as http://host/...")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    # One request per connection, so that a second request cannot name another host without a check.
    dropped = ("connection:", "proxy-", "host:", "keep-alive:", "transfer-encoding:", "content-length:", "upgrade:")
    headers = [field for field in rest.split("\r\n") if field and not field.lower().startswith(dropped)]
    lines = [f"{method} {path} {version}", f"Host: {parts.netloc}", *headers, "Connection: close", "", ""]
    return ProxyRequest(host, _port(origin_port), "\r\n".join(lines).encode())


def _port(number: int) -> int:
    if not 1 <= number <= 65_535:
        raise InvalidProxyRequest(f"{number} is not a valid port")
    return number


HEAD_BYTES = 16_384
HEAD_S = 10.0
LOOKUP_S = 5.0
CONNECT_S = 5.0
FETCH_S = 120.0
"""vLLM's timeouts are 5 s for an image and 30 s for a video; this timeout ends abandoned downloads."""
LINGER_S = 5.0
AT_ONCE = 128

Lookup = Callable[[str, int], Awaitable[Sequence[Address]]]
Connect = Callable[[str, int], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]


async def lookup(host: str, port: int) -> Sequence[Address]:
    """All addresses of a host name; empty if it has none."""
    try:
        return await resolve_host(host, port)
    except LookupFailed:
        return ()


@contextlib.asynccontextmanager
async def serve_proxy(
    host: str, port: int, domains: Mapping[str, bool], find: Lookup = lookup, connect: Connect = asyncio.open_connection
) -> AsyncIterator[asyncio.Server]:
    """Serves the proxy until the end of the context."""
    places = asyncio.Semaphore(AT_ONCE)

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with places, asyncio.timeout(FETCH_S):
                await _serve(reader, writer, domains, find, connect)
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # the client disconnected, or the timeout expired
        except Exception:
            structlog.get_logger().exception("media_failed")
        finally:
            writer.close()

    server = await asyncio.start_server(handle, host, port, limit=HEAD_BYTES)
    async with server:
        yield server


async def _serve(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    domains: Mapping[str, bool],
    find: Lookup,
    connect: Connect,
) -> None:
    async with asyncio.timeout(HEAD_S):
        head = await reader.readuntil(b"\r\n\r\n")
    try:
        request = parse_proxy_request(head)
    except InvalidProxyRequest as error:
        return await _refuse(writer, "", 400, str(error))
    addresses, why = await _check_request(request, domains, find)
    if why:
        return await _refuse(writer, request.host, 403, why)
    try:
        async with asyncio.timeout(CONNECT_S):
            origin_reader, origin_writer = await connect(str(addresses[0]), request.port)
    except (OSError, TimeoutError) as error:
        return await _refuse(
            writer, request.host, 502, f"{request.host} does not answer: {error or 'no connection in time'}"
        )
    try:
        if request.head:
            origin_writer.write(request.head)
            await _copy(origin_reader, writer)  # further data from the client is not forwarded
        else:
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            await _both(reader, writer, origin_reader, origin_writer)
    finally:
        origin_writer.close()


async def _check_request(
    request: ProxyRequest, domains: Mapping[str, bool], find: Lookup
) -> tuple[Sequence[Address], str]:
    if why := deny_media_host(request.host, domains):
        return (), why
    try:
        async with asyncio.timeout(LOOKUP_S):
            addresses = await find(request.host, request.port)
    except TimeoutError:
        return (), "the name lookup timed out"
    return addresses, deny_media_addresses(addresses, request.port, domains[request.host.lower().rstrip(".")])


async def _both(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    origin_reader: asyncio.StreamReader,
    origin_writer: asyncio.StreamWriter,
) -> None:
    """Copies in both directions, each until its end: a client that has sent its request still waits for the answer."""
    sending, receiving = (
        asyncio.create_task(_pass_on(reader, origin_writer)),
        asyncio.create_task(_pass_on(origin_reader, writer)),
    )
    directions = {sending, receiving}
    try:
        done, _ = await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
        failed = any(direction.exception() for direction in done)
        if not failed and receiving in done:
            await asyncio.wait(
                {sending}, timeout=LINGER_S
            )  # the origin has closed; the client sees that and closes too
        elif not failed:
            await receiving
    finally:
        for direction in directions:
            direction.cancel()
        await asyncio.gather(*directions, return_exceptions=True)


async def _pass_on(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    """Copies `source` to `target`, then closes the direction."""
    await _copy(source, target)
    if target.can_write_eof():
        target.write_eof()


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    while block := await source.read(65_536):
        target.write(block)
        await target.drain()


async def _refuse(writer: asyncio.StreamWriter, host: str, status: int, why: str) -> None:
    structlog.get_logger().warning("media_refused", host=host[:100], status=status, reason=why)
    body = f"{why}\n".encode()
    reasons = {400: "Bad Request", 403: "Forbidden", 502: "Bad Gateway"}
    writer.write(
        f"HTTP/1.1 {status} {reasons[status]}\r\nContent-Type: text/plain\r\nConnection: close\r\n"
        f"Content-Length: {len(body)}\r\n\r\n".encode()
        + body
    )
    await writer.drain()
