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


class ResponseParser:
    """One answer, from its bytes as they come: `status` and `headers` (names in lower case), then the content of its body."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: Mapping[str, str] = {}
        self.is_started = False
        self.is_complete = False
        self._raw = b""
        self._is_chunked = False
        self._missing: int | None = None

    @property
    def has_known_end(self) -> bool:
        """Without one the end of the connection is the end of the answer."""
        return self._is_chunked or self._missing is not None

    @property
    def ends_connection(self) -> bool:
        return self.headers.get("connection", "").lower() == "close" or not self.has_known_end

    def feed(self, data: bytes) -> bytes:
        """The content that came with these bytes. Raises ConnectionBroken."""
        self.is_started = True
        self._raw += data
        if not self.status and not self._read_head():
            return b""
        if self._is_chunked:
            content, self._raw, self.is_complete = unchunked(self._raw)
            return content
        length = len(self._raw) if self._missing is None else self._missing
        content, self._raw = self._raw[:length], self._raw[length:]
        if self._missing is not None:
            self._missing -= len(content)
            self.is_complete = self._missing == 0
        return content

    def end(self) -> None:
        """The connection was closed. Raises ConnectionBroken where the answer lacks something."""
        if not self.status:
            raise ConnectionBroken("closed before an answer")
        if self.has_known_end and not self.is_complete:
            raise ConnectionBroken("closed in the middle of an answer")
        self.is_complete = True

    def _read_head(self) -> bool:
        while (end := self._raw.find(_HEAD_END)) >= 0:
            head, self._raw = self._raw[: end + 2], self._raw[end + 4 :]
            if not head.startswith(b"HTTP/1.") or not head[9:12].isdigit():
                raise ConnectionBroken(f"not HTTP/1.1: {head[:40]!r}")
            if (status := int(head[9:12])) == 100:
                continue
            self.status = status
            self.headers = {
                name.decode("latin-1").lower(): value.decode("latin-1") for name, value in _HEADER.findall(head)
            }
            self._is_chunked = self.headers.get("transfer-encoding", "").lower() == "chunked"
            if not self._is_chunked and "content-length" in self.headers:
                self._missing = int(self.headers["content-length"])
            return True
        return False


class StreamingConnection:
    """One keep-alive connection, one request at a time. `timeout_s` is for each wait, not for the whole answer."""

    def __init__(self, to: TargetUrl, timeout_s: float, trusted: str = "") -> None:
        self._to = to
        self._timeout_s = timeout_s
        self._trusted = trusted
        self._socket: socket.socket | None = None
        self._parser = ResponseParser()
        self._first = b""

    def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> ResponseParser:
        """Sends a request and waits for status and headers. Raises ConnectionBroken or OSError (TimeoutError among them)."""
        lines = [f"POST {self._to.prefix}{path} HTTP/1.1", f"Host: {self._to.authority}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        lines += [f"Content-Length: {len(body)}", "\r\n"]
        message = "\r\n".join(lines).encode() + body
        is_fresh = self._socket is None
        try:
            return self._exchange(message)
        except (ConnectionBroken, BrokenPipeError, ConnectionResetError):
            # The other side may close an idle connection just as it is used again; no byte of an answer has come.
            if is_fresh or self._parser.is_started:
                raise
            return self._exchange(message)

    def _exchange(self, message: bytes) -> ResponseParser:
        self._parser = ResponseParser()
        try:
            link = self._socket or self._connect()
            link.sendall(message)
            while not self._parser.status:
                self._first = self._receive(link)
            if not self._parser.has_known_end:
                raise ConnectionBroken("an answer of unknown length")
        except BaseException:
            self.close()
            raise
        return self._parser

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

    def _receive(self, link: socket.socket) -> bytes:
        if data := link.recv(_BLOCK):
            return self._parser.feed(data)
        self._parser.end()
        return b""

    def pieces(self, reply: ResponseParser) -> Iterator[tuple[float, bytes]]:
        """Pieces of the body as they arrive, each with its perf_counter(). Raises ConnectionBroken or OSError.

        To be read to its end, or the connection closed.
        """
        assert self._socket is not None
        link, piece = self._socket, self._first
        try:
            while True:
                if piece:
                    yield time.perf_counter(), piece
                if reply.is_complete:
                    break
                piece = self._receive(link)
        except BaseException:
            self.close()
            raise
        if reply.ends_connection:
            self.close()

    def close(self) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.close()
            self._socket = None


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
