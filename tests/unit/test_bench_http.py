"""The users' HTTP client: whole and streamed answers, when pieces came, and answers that break off."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from benchmarks.gateways.gateway import AsyncConnection, chat_request, read_streamed_chat
from loadtest.http_client import ConnectionBroken

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@contextlib.asynccontextmanager
async def serving(*answers: list[bytes], close: bool = False) -> AsyncIterator[str]:
    """A server that sends the n-th list of pieces to the n-th request of a connection, 20 ms between pieces."""

    handlers: set[asyncio.Task[None] | None] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handlers.add(asyncio.current_task())
        for pieces in answers:
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length"))
            await reader.readexactly(int(length.split(b":")[1]))
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0.02)
        with contextlib.suppress(ConnectionError):
            if not close:
                await reader.read()
            writer.close()
            await writer.wait_closed()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        await asyncio.gather(*(task for task in handlers if task))


def chunk(text: str) -> bytes:
    return f"{len(text):x}\r\n{text}\r\n".encode()


def word(text: str) -> str:
    return f'data: {{"choices":[{{"delta":{{"content":"{text}"}},"finish_reason":null}}]}}\n\n'


END = 'data: {"choices":[{"delta":{},"finish_reason":"length"}]}\n\ndata: [DONE]\n\n'


async def test_a_streamed_answer_keeps_the_time_of_each_word() -> None:
    pieces = [HEAD, chunk(word("one ")), chunk(word("two")), chunk(END) + b"0\r\n\r\n"]
    async with serving(pieces) as address:
        connection = AsyncConnection(address)
        answer = await connection.send(chat_request(address, b"{}"))
        connection.close()
    said = read_streamed_chat(answer)
    assert (answer.status, "".join(said.text), said.finish_reason, said.done) == (200, "one two", "length", True)
    assert answer.started_s < said.tokens_s[0] < said.tokens_s[1] <= answer.ended_s


async def test_a_connection_serves_one_request_after_another() -> None:
    answer = [b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"]
    async with serving(answer, answer) as address:
        connection = AsyncConnection(address)
        bodies = [(await connection.send(chat_request(address, b"{}"))).body for _ in range(2)]
        connection.close()
    assert bodies == [b"hello", b"hello"]


@pytest.mark.parametrize("pieces", [[HEAD, chunk(word("one"))], [b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello"]])
async def test_an_answer_cut_short_is_no_answer(pieces: list[bytes]) -> None:
    async with serving(pieces, close=True) as address:
        with pytest.raises(ConnectionBroken):
            await AsyncConnection(address).send(chat_request(address, b"{}"))
