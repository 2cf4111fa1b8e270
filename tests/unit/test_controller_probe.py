"""What a probe makes of what an engine does: real sockets, and nothing an engine answers may raise, hang or fill the memory."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from manyeyes.config.engines import Engine
from manyeyes.config.gateway import Controller
from manyeyes.controller.health.probe import Probe, ProbeReport
from manyeyes.controller.health.states import CanaryResult, ProbeResult

RULES = Controller(probe_timeout_s=1, connect_timeout_s=1)
Answer = Callable[[str, asyncio.StreamWriter], Awaitable[None]]


def http(status: int = 200, body: bytes = b"", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


@contextlib.asynccontextmanager
async def engine(answer: Answer) -> AsyncIterator[tuple[Probe, list[bytes], list[str]]]:
    """A server that answers with `answer`, a probe of it, what was asked, and each loss of the connection."""
    asked: list[bytes] = []
    lost: list[str] = []
    open_now: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_now.append(writer)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0] or 0)
                asked.append(head + await reader.readexactly(length))
                await answer(head.split()[1].decode(), writer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    probe = Probe(Engine(name="a", pool="p", address=f"127.0.0.1:{port}", flavour="emulated"), lambda: lost.append("x"))
    try:
        yield probe, asked, lost
    finally:
        probe.close()
        server.close()
        for writer in open_now:
            writer.transport.abort()
        await asyncio.sleep(0.01)  # for the handlers to see it


def says(*replies: bytes) -> Answer:
    """Each path gets the same reply; or /health the first and everything else the second."""

    async def answer(path: str, writer: asyncio.StreamWriter) -> None:
        writer.write(replies[0] if path == "/health" else replies[-1])

    return answer


async def silence(path: str, writer: asyncio.StreamWriter) -> None:
    pass


async def look(probe: Probe, wait_s: float = 5, counters: bool = False) -> ProbeReport:
    began_s = time.monotonic()
    seen = await probe.run(RULES, wait_s, counters)
    assert time.monotonic() - began_s < 30
    return seen


@pytest.mark.parametrize(
    ("reply", "expected", "why"),
    [
        (http(200), ProbeResult.HEALTHY, ""),
        (http(503), ProbeResult.DEAD, ""),
        (http(500), ProbeResult.DEAD, ""),
        (http(404), ProbeResult.ODD, "it responds to /health with status 404"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", ProbeResult.ODD, "it does not speak HTTP"),
    ],
)
async def test_each_answer_to_health(reply: bytes, expected: ProbeResult, why: str) -> None:
    async with engine(says(reply)) as (probe, asked, _):
        seen = await look(probe)
        assert (seen.result, seen.why) == (expected, why)
        assert len(asked) == 1


async def test_an_answer_that_ends_with_its_connection_is_an_answer() -> None:
    async def answer(path: str, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.0 200 OK\r\n\r\nok")
        writer.close()

    async with engine(answer) as (probe, _, _):
        assert (await look(probe)).result is ProbeResult.HEALTHY
        assert (await look(probe)).result is ProbeResult.HEALTHY


async def test_where_nothing_listens_it_is_gone_and_a_name_that_does_not_resolve_too() -> None:
    for address in ("127.0.0.1:1", "no-such-engine.invalid:8000"):
        probe = Probe(Engine(name="a", pool="p", address=address, flavour="emulated"), lambda: None)
        assert (await look(probe)).result is ProbeResult.GONE


async def test_a_silent_engine_is_asked_once_and_waited_for() -> None:
    answered = asyncio.Event()

    async def answer(path: str, writer: asyncio.StreamWriter) -> None:
        await answered.wait()
        writer.write(http(200))

    async with engine(answer) as (probe, asked, _):
        assert (await look(probe, 0.1)).result is ProbeResult.SILENT
        assert (await look(probe, 0.1)).waited_s >= 0.2
        answered.set()
        assert (await look(probe)).result is ProbeResult.HEALTHY
        assert len(asked) == 1
        assert (await look(probe)).result is ProbeResult.HEALTHY
        assert len(asked) == 2


async def test_a_probe_that_reached_its_deadline_is_asked_anew() -> None:
    async with engine(silence) as (probe, asked, _):
        for _ in range(4):
            assert (await look(probe, 0.6)).result is ProbeResult.SILENT
        assert len(asked) == 2


async def test_a_connection_that_the_engine_cuts_is_told_at_once() -> None:
    async def answer(path: str, writer: asyncio.StreamWriter) -> None:
        writer.write(http(200))
        asyncio.get_running_loop().call_later(0.05, writer.transport.abort)

    async with engine(answer) as (probe, _, lost):
        assert (await look(probe)).result is ProbeResult.HEALTHY
        assert lost == []
        async with asyncio.timeout(10):
            while not lost:  # noqa: ASYNC110 it has no event
                await asyncio.sleep(0.01)


METRICS = b'# vLLM\nvllm:num_requests_running{engine="0"} 2.0\nvllm:generation_tokens_total{engine="0"} 5.0\n'


async def test_load_and_metrics_are_read_when_asked_for() -> None:
    async def answer(path: str, writer: asyncio.StreamWriter) -> None:
        writer.write(http(200, {"/load": b'{"server_load": 6}', "/metrics": METRICS}.get(path, b"")))

    async with engine(answer) as (probe, asked, _):
        assert (await look(probe)).load is None
        seen = await look(probe, counters=True)
        assert seen.load is not None
        assert (seen.load.in_flight, seen.load.running, seen.load.hidden_queue) == (6, 2, 4)
        assert seen.progressed is None
        assert (await look(probe, counters=True)).progressed is False
        assert [one.split()[1] for one in asked].count(b"/metrics") == 2


@pytest.mark.parametrize(
    "metrics",
    [http(404), http(200, b"<html>"), http(302), http(200, b"\nvllm:num_requests_running{} x\n"), http(200, b"[]")],
)
async def test_an_engine_without_such_metrics_is_healthy_all_the_same(metrics: bytes) -> None:
    async with engine(says(http(200), metrics)) as (probe, _, _):
        seen = await look(probe, counters=True)
        assert (seen.result, seen.load) == (ProbeResult.HEALTHY, None)


async def test_metrics_that_are_not_answered_leave_an_engine_healthy() -> None:
    async def silent(path: str, writer: asyncio.StreamWriter) -> None:
        if path != "/metrics":
            writer.write(http(200, b"{}"))

    async with engine(silent) as (probe, _, _):
        for _ in range(5):
            assert (await look(probe, 0.3, counters=True)).result is ProbeResult.HEALTHY


@pytest.mark.parametrize(
    ("reply", "outcome", "said"),
    [
        (http(200, json.dumps({"choices": [{"finish_reason": "length"}]}).encode()), CanaryResult.PASSED, ""),
        (
            http(200, json.dumps({"choices": [{"finish_reason": "abort"}]}).encode()),
            CanaryResult.FAILED,
            "finish_reason abort",
        ),
        (http(500, b"broken"), CanaryResult.FAILED, "status 500: broken"),
        (http(503, b"full"), CanaryResult.BUSY, "status 503: full"),
        (http(200, b"<html>"), CanaryResult.FAILED, "the response is not a completion: <html>"),
        (http(200, b"[]"), CanaryResult.FAILED, "the response is not a completion: []"),
        (b"what\r\n\r\n", CanaryResult.FAILED, "it does not speak HTTP"),
    ],
)
async def test_each_outcome_of_a_picture(reply: bytes, outcome: CanaryResult, said: str) -> None:
    async with engine(says(http(200), reply)) as (probe, _, _):
        await look(probe)
        assert await probe.send_canary("m", True, 5) == (outcome, said)


async def test_a_picture_that_is_not_answered_is_given_up() -> None:
    async with engine(silence) as (probe, _, _):
        await look(probe, 0.05)
        assert await probe.send_canary("m", True, 0.2) == (CanaryResult.SILENT, "no response within 0.2 s")


async def test_a_picture_is_sent_where_the_pool_takes_pictures() -> None:
    async with engine(says(http(200), http(200, b"{}"))) as (probe, asked, _):
        await look(probe)
        await probe.send_canary("m", True, 5)
        await probe.send_canary("m", False, 5)
        bodies: list[Any] = [json.loads(one.partition(b"\r\n\r\n")[2]) for one in asked[1:]]
        kinds = [[part["type"] for part in body["messages"][0]["content"]] for body in bodies]
        assert kinds == [["image_url", "text"], ["text"]]
        assert b"POST /v1/chat/completions" in asked[1]
