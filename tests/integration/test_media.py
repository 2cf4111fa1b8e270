"""The way out for engines that may fetch pictures by URL: what it connects to, and what it does not."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from ipaddress import ip_address

import httpx
import pytest

from manyeyes.egress_proxy.proxy import serve_proxy
from manyeyes.netpolicy import Address

PUBLIC, METADATA = "93.184.216.34", "169.254.169.254"


class Names:
    """A resolver whose answers change, as those of a hostile one do; the last answer stays."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> Sequence[Address]:
        self.asked.append(host)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return [ip_address(one) for one in answer]


class Way:
    """A proxy, the addresses that it connected to, and a server that answers for all of them."""

    def __init__(self, port: int, connected: list[str]) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.connected = connected

    async def get(self, url: str) -> httpx.Response:
        async with httpx.AsyncClient(proxy=self.url, trust_env=False, timeout=10) as client:
            return await client.get(url)


REDIRECT = f"HTTP/1.1 302 Found\r\nLocation: http://{METADATA}/latest\r\nContent-Length: 0\r\n\r\n".encode()
PICTURE = b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\nConnection: close\r\n\r\npicture"


@contextlib.asynccontextmanager
async def way(names: Names, answer: bytes = PICTURE, private: bool = False) -> AsyncIterator[Way]:
    seen: list[bytes] = []

    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            seen.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(answer)
            await writer.drain()
        writer.close()

    origin = await asyncio.start_server(reply, "127.0.0.1", 0)
    connected: list[str] = []

    async def connect(host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        connected.append(f"{host}:{port}")
        return await asyncio.open_connection("127.0.0.1", origin.sockets[0].getsockname()[1])

    async with origin, serve_proxy("127.0.0.1", 0, {"pictures.example.com": private}, names, connect) as server:
        yield Way(server.sockets[0].getsockname()[1], connected)


async def test_a_picture_of_an_allowed_host_is_fetched_from_the_address_that_was_looked_at() -> None:
    async with way(Names([PUBLIC])) as out:
        assert (await out.get("http://pictures.example.com/cat.png")).text == "picture"
        assert out.connected == [f"{PUBLIC}:80"]


@pytest.mark.parametrize(
    "url",
    [
        "http://other.example.com/cat.png",
        f"http://{METADATA}/latest/meta-data",
        "http://127.0.0.1/",
        "http://[::1]/",
        "http://pictures.example.com.evil.example/",
        "http://2852039166/",
    ],
)
async def test_a_host_that_is_not_allowed_is_not_even_looked_up(url: str) -> None:
    names = Names([PUBLIC])
    async with way(names) as out:
        assert (await out.get(url)).status_code in (400, 403)
        assert (out.connected, names.asked) == ([], [])


@pytest.mark.parametrize(
    "address",
    [
        METADATA, "127.0.0.1", "0.0.0.0", "10.0.0.5", "172.17.0.1", "192.168.1.1", "100.64.0.1", "100.100.100.200",
        "224.0.0.1", "255.255.255.255", "::1", "fe80::1", "fd00::1", "::ffff:169.254.169.254", "::ffff:10.0.0.1",
        "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::",
    ],
)  # fmt: skip
async def test_an_allowed_name_that_leads_inside_is_refused(address: str) -> None:
    async with way(Names([address])) as out:
        assert (await out.get("http://pictures.example.com/")).status_code == 403
        with pytest.raises(httpx.ProxyError, match="403"):
            await out.get("https://pictures.example.com/")
        assert out.connected == []


async def test_one_bad_address_among_good_ones_refuses_all() -> None:
    async with way(Names([PUBLIC, METADATA])) as out:
        assert (await out.get("http://pictures.example.com/")).status_code == 403
        assert out.connected == []


async def test_a_name_that_moves_between_two_lookups_is_connected_to_where_it_was_looked_at() -> None:
    names = Names([PUBLIC], [METADATA])
    async with way(names) as out:
        assert (await out.get("http://pictures.example.com/")).status_code == 200
        assert (out.connected, len(names.asked)) == ([f"{PUBLIC}:80"], 1)
        assert (await out.get("http://pictures.example.com/")).status_code == 403
        assert out.connected == [f"{PUBLIC}:80"]


async def test_a_redirect_to_the_metadata_service_is_refused_when_it_is_followed() -> None:
    async with way(Names([PUBLIC]), REDIRECT) as out:
        moved = await out.get("http://pictures.example.com/")
        assert moved.status_code == 302
        assert (await out.get(moved.headers["Location"])).status_code == 403
        assert out.connected == [f"{PUBLIC}:80"]


async def test_private_addresses_where_they_are_allowed_are_for_web_servers_only() -> None:
    async with way(Names(["10.1.2.3"]), private=True) as out:
        assert (await out.get("http://pictures.example.com/")).status_code == 200
        assert (await out.get("http://pictures.example.com:6379/")).status_code == 403
        assert out.connected == ["10.1.2.3:80"]
    async with way(Names([METADATA]), private=True) as out:
        assert (await out.get("http://pictures.example.com/")).status_code == 403


async def test_the_second_request_of_a_connection_is_not_passed_on() -> None:
    async with way(Names([PUBLIC])) as out:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(out.url.rpartition(":")[2]))
        one = b"GET http://pictures.example.com/ HTTP/1.1\r\nHost: pictures.example.com\r\n\r\n"
        writer.write(one + b"GET http://169.254.169.254/ HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await asyncio.wait_for(reader.read(), 10)).count(b"HTTP/1.1") == 1
        writer.close()
        assert out.connected == [f"{PUBLIC}:80"]


DIGITS = b"CONNECT pictures.example.com:" + b"9" * 6000 + b" HTTP/1.1"


@pytest.mark.parametrize(
    "head",
    [b"POST http://pictures.example.com/ HTTP/1.1", b"GET /cat.png HTTP/1.1", b"\xff", b"CONNECT x HTTP/1.1", DIGITS],
    ids=["post", "no host", "no text", "no port", "a port of thousands of digits"],
)
async def test_what_fetches_nothing_is_refused(head: bytes) -> None:
    async with way(Names([PUBLIC])) as out:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(out.url.rpartition(":")[2]))
        writer.write(head + b"\r\n\r\n")
        assert (await asyncio.wait_for(reader.readline(), 10)).startswith(b"HTTP/1.1 400")
        writer.close()
        assert out.connected == []


async def test_a_client_that_has_said_all_it_has_to_say_still_gets_the_whole_answer() -> None:
    """It half-closes after its request, as `nc -N` and some HTTP clients do, and the origin answers afterwards."""
    ended = asyncio.Event()

    async def origin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.read() == b"question"
        ended.set()
        for _ in range(20):
            writer.write(b"x" * 10_000)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(origin, "127.0.0.1", 0)

    async def connect(host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", server.sockets[0].getsockname()[1])

    domains = {"pictures.example.com": False}
    async with server, serve_proxy("127.0.0.1", 0, domains, Names([PUBLIC]), connect) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.sockets[0].getsockname()[1])
        writer.write(b"CONNECT pictures.example.com:443 HTTP/1.1\r\n\r\n")
        assert b" 200 " in await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
        writer.write(b"question")
        writer.write_eof()
        assert len(await asyncio.wait_for(reader.read(), 10)) == 200_000
        assert ended.is_set()
        writer.close()
