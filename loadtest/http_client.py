"""HTTP/1.1 over a plain socket, read as it arrives: what a streaming load test needs and Locust's own clients do not give.

`FastHttpUser` and `requests` hand out a body in blocks of a size asked for, and wait until a block is full: with answers of
a few hundred bytes the first token is seen together with the last one. Here every `recv` is handed on with its time.
Under Locust the socket is gevent's, because Locust patches the standard library; without it this is an ordinary blocking
client.
"""

import contextlib
import re
import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

_BLOCK = 65_536
_HEAD_END = b"\r\n\r\n"
_HEADER = re.compile(rb"\r\n([^:\r\n]+):[ \t]*([^\r\n]*)")


class ConnectionBroken(Exception):
    """The other side closed the connection or sent what is not HTTP before the answer was whole."""


@dataclass(frozen=True)
class TargetUrl:
    """Where requests go: `http://host:port` with an optional path in front of `/v1`."""

    scheme: str
    host: str
    port: int
    prefix: str = ""

    @property
    def authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def parse_target(url: str) -> TargetUrl:
    """Raises ValueError with one sentence. A `/v1` at the end, which many clients want, may stand there or not."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"URL wants http://host:port or https://host:port, found {url!r}")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return TargetUrl(parts.scheme, parts.hostname, port, parts.path.rstrip("/").removesuffix("/v1"))


@dataclass
class ResponseHead:
    """Status and headers (names in lower case) of an answer whose body is still to come."""

    status: int
    headers: Mapping[str, str]


class StreamingConnection:
    """One keep-alive connection, one request at a time. `timeout_s` is for each wait, not for the whole answer."""

    def __init__(self, to: TargetUrl, timeout_s: float, trusted: str = "") -> None:
        self._to = to
        self._timeout_s = timeout_s
        self._trusted = trusted
        self._socket: socket.socket | None = None
        self._left = b""

    def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> ResponseHead:
        """Sends a request and waits for status and headers. Raises Broken or OSError (TimeoutError among them)."""
        lines = [f"POST {self._to.prefix}{path} HTTP/1.1", f"Host: {self._to.authority}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        lines += [f"Content-Length: {len(body)}", "\r\n"]
        message = "\r\n".join(lines).encode() + body
        fresh = self._socket is None
        try:
            return self._exchange(message)
        except (ConnectionBroken, BrokenPipeError, ConnectionResetError):
            # The other side may close an idle connection just as it is used again; no byte of an answer has come.
            if fresh or self._left:
                raise
            return self._exchange(message)
        except BaseException:
            self.close()
            raise

    def _exchange(self, message: bytes) -> ResponseHead:
        self._left = b""
        try:
            link = self._socket or self._connect()
            link.sendall(message)
            return self._read_head(link)
        except BaseException:
            left = self._left
            self.close()
            self._left = left
            raise

    def _connect(self) -> socket.socket:
        link = socket.create_connection((self._to.host, self._to.port), self._timeout_s)
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._to.scheme == "https":
            context = ssl.create_default_context(cafile=self._trusted or None)
            if self._trusted:  # the gateway's own certificate, whatever name it is for
                context.check_hostname = False
                context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
            link = context.wrap_socket(link, server_hostname=self._to.host)
        self._socket = link
        return link

    def _read_head(self, link: socket.socket) -> ResponseHead:
        while (end := self._left.find(_HEAD_END)) < 0:
            more = link.recv(_BLOCK)
            if not more:
                raise ConnectionBroken("closed before an answer")
            self._left += more
        head, self._left = self._left[: end + 2], self._left[end + 4 :]
        if not head.startswith(b"HTTP/1.1 ") or not head[9:12].isdigit():
            raise ConnectionBroken(f"not HTTP/1.1: {head[:40]!r}")
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in _HEADER.findall(head)}
        return ResponseHead(int(head[9:12]), headers)

    def pieces(self, reply: ResponseHead) -> Iterator[tuple[float, bytes]]:
        """Pieces of the body as they arrive, each with its perf_counter(). Raises Broken or OSError.

        To be read to its end, or the connection closed.
        """
        assert self._socket is not None
        try:
            if reply.headers.get("transfer-encoding", "").lower() == "chunked":
                yield from self._chunked(self._socket)
            elif "content-length" in reply.headers:
                yield from self._counted(self._socket, int(reply.headers["content-length"]))
            else:
                raise ConnectionBroken("an answer of unknown length")
        except BaseException:
            self.close()
            raise
        if reply.headers.get("connection", "").lower() == "close":
            self.close()

    def _counted(self, link: socket.socket, length: int) -> Iterator[tuple[float, bytes]]:
        piece, self._left = self._left, b""
        while True:
            if piece:
                yield time.perf_counter(), piece
                length -= len(piece)
            if length <= 0:
                return
            piece = link.recv(_BLOCK)
            if not piece:
                raise ConnectionBroken("closed in the middle of an answer")

    def _chunked(self, link: socket.socket) -> Iterator[tuple[float, bytes]]:
        data, self._left = self._left, b""
        while True:
            now = time.perf_counter()
            body, data, ended = unchunked(data)
            if body:
                yield now, body
            if ended:
                self._left = data
                return
            more = link.recv(_BLOCK)
            if not more:
                raise ConnectionBroken("closed in the middle of an answer")
            data += more

    def close(self) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.close()
            self._socket = None
        self._left = b""


def unchunked(data: bytes) -> tuple[bytes, bytes, bool]:
    """(content of the whole chunks at the start of `data`, what is left, whether the last chunk was there)."""
    content: list[bytes] = []
    at = 0
    while (line := data.find(b"\r\n", at)) >= 0:
        try:
            size = int(data[at:line].split(b";")[0], 16)
        except ValueError:
            raise ConnectionBroken(f"not a chunk: {data[at:line][:40]!r}") from None
        if size == 0:
            # No trailers are asked for; a server that sends some ends the connection's use here.
            end = data.find(b"\r\n", line + 2)
            if end < 0:
                break
            return b"".join(content), data[end + 2 :], True
        if len(data) < line + 2 + size + 2:
            break
        content.append(data[line + 2 : line + 2 + size])
        at = line + 2 + size + 2
    return b"".join(content), data[at:], False
