"""HTTP client of the measurements: fetches a URL, or streams a response and yields each piece as it arrives.

`FastHttpUser` and `requests` return a body in blocks of a given size and wait until a block is full: with answers of a few
hundred bytes the first token would be seen together with the last token. Here every read is returned with its time.
Under Locust the sockets are gevent's, because Locust patches the standard library; otherwise this client blocks.
"""

import contextlib
import http.client
import json
import ssl
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

_BLOCK = 65_536


class ConnectionBroken(Exception):
    """The server closed the connection, or sent invalid HTTP, before the response was complete."""


@dataclass(frozen=True)
class TargetUrl:
    """The server's address: `http://host:port` with an optional path in front of `/v1`."""

    scheme: str
    host: str
    port: int
    prefix: str = ""

    @property
    def base(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}{self.prefix}"


def parse_target(url: str) -> TargetUrl:
    """Parses a URL; a `/v1` at its end, as many clients require it, is removed. Raises ValueError with one sentence."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"URL: expected http://host:port or https://host:port, got {url!r}")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return TargetUrl(parts.scheme, parts.hostname, port, parts.path.rstrip("/").removesuffix("/v1"))


def tls_context(trusted: str) -> ssl.SSLContext:
    """`trusted`: a file with the gateway's certificate, accepted for any host name. Empty: the system's certificates."""
    context = ssl.create_default_context(cafile=trusted or None)
    if trusted:
        context.check_hostname = False
        context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
    return context


def bearer(key: str) -> dict[str, str]:
    """The Authorization header for a key; no header if the key is empty."""
    return {"Authorization": f"Bearer {key}"} if key else {}


def fetch(
    url: str,
    body: object = None,
    headers: Mapping[str, str] | None = None,
    *,
    method: str | None = None,
    trusted: str = "",
    timeout_s: float = 10.0,
    uses_proxy: bool = False,
) -> bytes:
    """Sends `body` as JSON and returns the response body. Uses a proxy only with `uses_proxy`, to test the gateway itself.

    Raises OSError (including urllib.error.HTTPError) or ValueError.
    """
    data = json.dumps(body).encode() if body is not None else None
    request = urllib.request.Request(url, data, {"Content-Type": "application/json", **(headers or {})}, method=method)
    handlers: list[urllib.request.BaseHandler] = [urllib.request.HTTPSHandler(context=tls_context(trusted))]
    if not uses_proxy:
        handlers.append(urllib.request.ProxyHandler({}))
    with urllib.request.build_opener(*handlers).open(request, timeout=timeout_s) as reply:
        return bytes(reply.read())


class StreamingConnection:
    """One keep-alive connection for one request at a time. `timeout_s` limits each read, not the whole response."""

    def __init__(self, to: TargetUrl, timeout_s: float, trusted: str = "") -> None:
        self.timeout_s = timeout_s
        self._prefix = to.prefix
        self._link = (
            http.client.HTTPSConnection(to.host, to.port, timeout=timeout_s, context=tls_context(trusted))
            if to.scheme == "https"
            else http.client.HTTPConnection(to.host, to.port, timeout=timeout_s)
        )

    def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> http.client.HTTPResponse:
        """Sends a request and waits for status and headers. Raises ConnectionBroken or OSError (including TimeoutError)."""
        try:
            if self._link.sock is not None:
                # The server may close an idle connection just when it is reused. No byte of a response has arrived.
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    return self._exchange(path, body, headers)
            return self._exchange(path, body, headers)
        except http.client.RemoteDisconnected:
            raise ConnectionBroken("closed before an answer") from None

    def _exchange(self, path: str, body: bytes, headers: Mapping[str, str]) -> http.client.HTTPResponse:
        try:
            self._link.request("POST", f"{self._prefix}{path}", body, headers)
            reply = self._link.getresponse()
            if not reply.chunked and reply.length is None:
                raise ConnectionBroken("an answer of unknown length")
        except http.client.RemoteDisconnected:
            self.close()
            raise
        except http.client.HTTPException as error:
            self.close()
            raise ConnectionBroken(f"not HTTP/1.1: {error}") from None
        except BaseException:
            self.close()
            raise
        return reply

    def pieces(self, reply: http.client.HTTPResponse) -> Iterator[tuple[float, bytes]]:
        """Yields pieces of the body as they arrive, each with its perf_counter(). Raises ConnectionBroken or OSError.

        The caller must read to the end or close the connection.
        """
        try:
            while piece := reply.read1(_BLOCK):
                yield time.perf_counter(), piece
            if reply.length:
                raise http.client.IncompleteRead(b"", reply.length)
            reply.close()  # the connection is free for the next request
        except http.client.HTTPException:
            self.close()
            raise ConnectionBroken("closed in the middle of an answer") from None
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._link.close()
