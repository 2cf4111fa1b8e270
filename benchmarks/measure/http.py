"""A small HTTP/1.1 client on asyncio that costs little and knows when each piece of an answer arrived.

An HTTP library would be the largest consumer of CPU in a run with thousands of streamed chunks a second.
"""

import asyncio
from dataclasses import dataclass, field
from time import perf_counter
from typing import cast

from benchmarks.gateways.gateway import KEY
from loadtest.http_client import ConnectionBroken, ResponseParser
from loadtest.virtual_user import CompletionStream


@dataclass
class HttpAnswer:
    """Times are perf_counter() seconds. `pieces`: when each read brought bytes of the body, and how many in total then."""

    started_s: float
    status: int = 0
    body: bytearray = field(default_factory=bytearray)
    pieces: list[tuple[float, int]] = field(default_factory=list)
    ended_s: float = 0.0


class AsyncConnection(asyncio.Protocol):
    """One keep-alive connection, one request at a time."""

    def __init__(self, address: str, source: str | None = None) -> None:
        self._host, _, port = address.partition(":")
        self._port = int(port)
        self._source = source
        self._transport: asyncio.Transport | None = None
        self._done: asyncio.Future[HttpAnswer] | None = None
        self._answer = HttpAnswer(0)
        self._parser = ResponseParser()

    async def send(self, request: bytes, deadline_s: float = 180) -> HttpAnswer:
        """Sends a whole request and returns the whole answer. Raises ConnectionBroken, OSError or TimeoutError."""
        if self._transport is None or self._transport.is_closing():
            local = (self._source, 0) if self._source else None
            loop = asyncio.get_running_loop()
            await loop.create_connection(lambda: self, self._host, self._port, local_addr=local)
        assert self._transport is not None
        self._done = asyncio.get_running_loop().create_future()
        self._parser = ResponseParser()
        self._answer = HttpAnswer(perf_counter())
        self._transport.write(request)
        try:
            async with asyncio.timeout(deadline_s):
                return await self._done
        except BaseException:
            self.close()
            raise
        finally:
            self._done = None

    def close(self) -> None:
        if self._transport:
            self._transport.abort()
            self._transport = None

    # --- what asyncio calls ---------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        if self._done and not self._done.done():
            try:
                if error:
                    raise ConnectionBroken(str(error))
                self._parser.end()
                self._end(perf_counter())
            except ConnectionBroken as broken:
                self._done.set_exception(broken)

    def data_received(self, data: bytes) -> None:
        now = perf_counter()
        if self._done is None or self._done.done():
            return
        try:
            content = self._parser.feed(data)
        except (ConnectionBroken, ValueError) as error:
            self._done.set_exception(ConnectionBroken(f"not HTTP: {error}"))
            self.close()
            return
        if content:
            self._answer.body += content
            self._answer.pieces.append((now, len(self._answer.body)))
        if self._parser.is_complete:
            self._end(now)

    def _end(self, now: float) -> None:
        self._answer.status = self._parser.status
        self._answer.ended_s = now
        if self._done:
            self._done.set_result(self._answer)
        if self._parser.ends_connection:
            self.close()


def chat_request(address: str, body: bytes, headers: dict[str, str] | None = None) -> bytes:
    """A chat request as OpenAI's client sends it, with its key."""
    more = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: {address}\r\nAccept: application/json\r\n"
        f"Authorization: Bearer {KEY}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n{more}\r\n"
    )
    return head.encode() + body


def read_streamed_chat(answer: HttpAnswer) -> CompletionStream:
    """The answer's events, each with the time of the read that ended it."""
    stream, at = CompletionStream(), 0
    for now, until in answer.pieces:
        stream.feed(now, bytes(answer.body[at:until]))
        at = until
    return stream
