"""A small HTTP/1.1 client on asyncio that costs little and knows when each piece of an answer arrived.

An HTTP library would be the largest consumer of CPU in a run with thousands of streamed chunks a second.
"""

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter
from typing import cast

import orjson

from benchmarks.gateways.gateway import KEY

_BLANK_LINE = re.compile(rb"\r?\n\r?\n")


class BrokenAnswer(Exception):
    """The other side closed the connection, or sent what is not HTTP, before the answer was complete."""


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

    async def ask(self, request: bytes, deadline_s: float = 180) -> HttpAnswer:
        """Sends a whole request and returns the whole answer. Raises BrokenAnswer, OSError or TimeoutError."""
        if self._transport is None or self._transport.is_closing():
            local = (self._source, 0) if self._source else None
            loop = asyncio.get_running_loop()
            await loop.create_connection(lambda: self, self._host, self._port, local_addr=local)
        assert self._transport is not None
        self._done = asyncio.get_running_loop().create_future()
        self._raw = bytearray()
        self._read: Callable[[float], None] = self._read_head
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
            if self._read == self._read_until_close and error is None:
                self._end(perf_counter())
            else:
                self._done.set_exception(BrokenAnswer(str(error or "the connection was closed")))

    def data_received(self, data: bytes) -> None:
        now = perf_counter()
        if self._done is None or self._done.done():
            return
        self._raw += data
        try:
            self._read(now)
        except (ValueError, LookupError) as error:
            self._done.set_exception(BrokenAnswer(f"not HTTP: {error}"))
            self.close()

    # --- the parts of an answer -----------------------------------------------------------------------------------

    def _read_head(self, now: float) -> None:
        end = self._raw.find(b"\r\n\r\n")
        if end < 0:
            return
        lines = bytes(self._raw[:end]).decode("latin-1").split("\r\n")
        del self._raw[: end + 4]
        self._answer.status = int(lines[0].split(" ", 2)[1])
        if self._answer.status == 100:
            self._read_head(now)
            return
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        self._closes = headers.get("connection", "").lower() == "close"
        if "chunked" in headers.get("transfer-encoding", "").lower():
            self._read = self._read_chunks
        elif "content-length" in headers:
            self._length = int(headers["content-length"])
            self._read = self._read_length
        else:
            self._closes = True
            self._read = self._read_until_close
        self._read(now)

    def _read_length(self, now: float) -> None:
        self._take(now, min(len(self._raw), self._length - len(self._answer.body)))
        if len(self._answer.body) == self._length:
            self._end(now)

    def _read_until_close(self, now: float) -> None:
        self._take(now, len(self._raw))

    def _read_chunks(self, now: float) -> None:
        while True:
            line = self._raw.find(b"\r\n")
            if line < 0:
                return
            size = int(bytes(self._raw[:line]).split(b";")[0], 16)
            if len(self._raw) < line + 4 + size:
                return
            del self._raw[: line + 2]
            if size == 0:
                self._end(now)
                return
            self._take(now, size)
            del self._raw[:2]

    def _take(self, now: float, size: int) -> None:
        if size:
            self._answer.body += self._raw[:size]
            del self._raw[:size]
            self._answer.pieces.append((now, len(self._answer.body)))

    def _end(self, now: float) -> None:
        self._answer.ended_s = now
        if self._done and not self._done.done():
            self._done.set_result(self._answer)
        if self._closes:
            self.close()


def chat_request(address: str, body: bytes, headers: dict[str, str] | None = None) -> bytes:
    """A chat request as OpenAI's client sends it, with its key."""
    more = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: {address}\r\nAccept: application/json\r\n"
        f"Authorization: Bearer {KEY}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n{more}\r\n"
    )
    return head.encode() + body


@dataclass(frozen=True)
class StreamedChat:
    """A streamed chat answer. `words_s`: when each chunk with text arrived, in perf_counter() seconds."""

    text: str
    words_s: tuple[float, ...]
    finish_reason: str | None
    complete: bool


def read_streamed_chat(answer: HttpAnswer) -> StreamedChat:
    """Reads server-sent events; `complete` says that the closing [DONE] came."""
    text: list[str] = []
    times: list[float] = []
    finish = None
    complete = False
    pieces = iter(answer.pieces)
    now, until = next(pieces, (answer.ended_s, 0))
    at = 0
    body = bytes(answer.body)
    for blank in _BLANK_LINE.finditer(body):
        while until < blank.end():
            now, until = next(pieces, (answer.ended_s, len(body)))
        for line in body[at : blank.start()].splitlines():
            if line.startswith(b"data: [DONE]"):
                complete = True
            elif line.startswith(b"data: "):
                choices = orjson.loads(line[6:]).get("choices") or [{}]
                word = (choices[0].get("delta") or {}).get("content")
                finish = choices[0].get("finish_reason") or finish
                if word:
                    text.append(word)
                    times.append(now)
        at = blank.end()
    return StreamedChat("".join(text), tuple(times), finish, complete)
