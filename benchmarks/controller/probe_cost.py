"""What one look costs by client: CPU of this process per GET /health over one kept-alive connection."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import httpx

from manyeyes.controller.health import vllm_metrics
from manyeyes.controller.health.http_connection import ProbeConnection

LOOKS = 3000


async def cost_us(ask: Callable[[], Awaitable[object]]) -> float:
    """CPU µs per call, one after the other."""
    for _ in range(100):
        await ask()
    began = time.process_time()
    for _ in range(LOOKS):
        await ask()
    return (time.process_time() - began) / LOOKS * 1e6


async def clients(port: int) -> dict[str, float]:
    """Three ways to ask, against the same engine."""
    connection = await ProbeConnection.open("127.0.0.1", port, 5, lambda: None)

    async def by_protocol() -> None:
        asked = connection.ask("/health", 1 << 16)
        await asyncio.wait([asked], timeout=1)
        asked.result()

    reader, writer = await asyncio.open_connection("127.0.0.1", port)

    async def by_streams() -> None:
        async with asyncio.timeout(1):
            writer.write(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")

    async with httpx.AsyncClient(trust_env=False) as client:

        async def by_httpx() -> None:
            (await client.get(f"http://127.0.0.1:{port}/health")).raise_for_status()

        found = {
            "httpx": await cost_us(by_httpx),
            "asyncio streams, no HTTP parser": await cost_us(by_streams),
            "manyeyes/controller/health/http_connection.py (Protocol, httptools)": await cost_us(by_protocol),
        }
    connection.close()
    writer.close()
    return found


def scanning_us(text: bytes) -> dict[str, float]:
    """CPU µs to read the needed numbers of one engine's metrics."""
    from prometheus_client.parser import text_string_to_metric_families

    found = {}
    places: dict[str, int] = {}
    for name, times in (("scan, first look", 1), ("scan, later looks", 2000)):
        began = time.process_time()
        for _ in range(times):
            counters = vllm_metrics.read(text, places)
        assert counters
        found[name] = (time.process_time() - began) / times * 1e6
        places = counters.places
    began = time.process_time()
    list(text_string_to_metric_families(text.decode()))
    found["prometheus_client's parser"] = (time.process_time() - began) * 1e6
    return found
