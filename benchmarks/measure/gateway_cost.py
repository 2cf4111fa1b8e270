"""What a gateway costs for one request of an exact size: CPU when what stands behind it answers immediately, and the time it
adds for one client, whose requests are sent twice, past the gateway and through it, in turns."""

import asyncio
import base64
import time
from random import Random
from typing import Any

import orjson
import uvloop

from benchmarks.gateways.gateway import MODEL, RunningGateway
from benchmarks.measure.http import AsyncConnection, chat_request, read_streamed_chat
from benchmarks.workloads import data_url
from loadtest.content import question
from loadtest.process_group import cpu_s, memory_mb
from loadtest.statistics import median, percentile


def chat_body(size: int, number: int, stream: bool = False, picture_url: str | None = None) -> bytes:
    """`size` bytes of JSON, different for each number. With `picture_url` that picture, and whatever size it makes."""
    random = Random(f"body {size} {number}")

    def made(url: str) -> bytes:
        picture = {"type": "image_url", "image_url": {"url": url}}
        first = [picture, {"type": "text", "text": question(Random(f"first {number}"), 12)}]
        return orjson.dumps(
            {
                "messages": [
                    {"role": "user", "content": first},
                    {"role": "assistant", "content": question(Random(f"answer {number}"), 32)},
                    {"role": "user", "content": question(Random(f"second {number}"), 16)},
                ],
                "model": MODEL,
                "max_tokens": 32,
                "stream": stream,
            }
        )

    if picture_url:
        return made(picture_url)
    start = "data:image/jpeg;base64,"
    room = size - len(made(start))
    if room < 0:
        raise ValueError(f"a chat about a picture has at least {size - room} bytes, wanted {size}")
    return made(start + base64.b64encode(random.randbytes(room * 3 // 4 + 3)).decode()[:room])


SIZES = {"3 KB": 3_000, "200 KB": 200_000, "2 MB": 2_000_000}
CONNECTIONS = 4
BODIES = 8
IDLE_S = 2.0


def cpu_per_request(running: RunningGateway, size: int, seconds: float) -> dict[str, Any]:
    """For `seconds` s of requests of `size` bytes, 4 at a time: microseconds per request, by part and in all.

    What the gateway uses while idle (health checks) is measured first and taken off.
    """
    address = running.targets[0]
    requests = [chat_request(address, chat_body(size, number)) for number in range(BODIES)]
    uvloop.run(_send_for(address, requests, min(1.0, seconds / 4)))
    sessions = {part: [session] for part, session in running.parts.items()}

    def used() -> dict[str, float]:
        return {part: cpu_s(session) for part, session in sessions.items()}

    before_idle = used()
    time.sleep(IDLE_S)
    before = used()
    idle = {part: (before[part] - before_idle[part]) / IDLE_S for part in sessions}
    started = time.monotonic()
    count = uvloop.run(_send_for(address, requests, seconds))
    passed = time.monotonic() - started
    time.sleep(0.3)  # what a gateway does after an answer (its log) is part of the request
    after = used()
    parts = {p: 1e6 * max(0.0, after[p] - before[p] - idle[p] * (passed + 0.3)) / count for p in sessions}
    return {
        "cpu_us": sum(parts.values()),
        "parts_us": parts,
        "idle_share": sum(idle.values()),
        "requests": count,
        "rps": count / passed,
        "memory_mb": memory_mb(list(running.parts.values())),
    }


async def _send_for(address: str, requests: list[bytes], seconds: float) -> int:
    until = time.monotonic() + seconds

    async def client(number: int) -> int:
        connection = AsyncConnection(address)
        count = 0
        try:
            while time.monotonic() < until or count < 5:
                answer = await connection.send(requests[(number + count) % len(requests)], 60)
                if answer.status != 200:
                    raise RuntimeError(f"{address} answered {answer.status}: {bytes(answer.body[:300])!r}")
                count += 1
        finally:
            connection.close()
        return count

    return sum(await asyncio.gather(*(client(number) for number in range(CONNECTIONS))))


TOGETHER_S = 0.001
WARM_UP = 10


def added_latency(direct: str, gateway: str, size: int, seconds: float) -> dict[str, Any]:
    """Whole answers, not streamed. Milliseconds; `added` are percentiles of the differences of neighbours."""
    past, through = uvloop.run(_pairs(direct, gateway, size, seconds))
    added = [b - a for a, b in zip(past, through, strict=True)]
    return {
        "pairs": len(past),
        "direct_p50_ms": 1e3 * median(past),
        "direct_p99_ms": 1e3 * percentile(past, 0.99),
        "through_p50_ms": 1e3 * median(through),
        "through_p99_ms": 1e3 * percentile(through, 0.99),
        "added_p50_ms": 1e3 * median(added),
        "added_p99_ms": 1e3 * percentile(added, 0.99),
    }


async def _pairs(direct: str, gateway: str, size: int, seconds: float) -> tuple[list[float], list[float]]:
    ways = (AsyncConnection(direct), AsyncConnection(gateway))
    taken: tuple[list[float], list[float]] = ([], [])
    until = time.monotonic() + seconds
    number = -WARM_UP
    while time.monotonic() < until or number < WARM_UP:
        body = chat_body(size, number % 8)
        # Whoever goes first finds colder caches: they take turns.
        order = (0, 1) if number % 2 else (1, 0)
        for way in order:
            answer = await ways[way].send(chat_request((direct, gateway)[way], body))
            if answer.status != 200:
                raise RuntimeError(f"status {answer.status}: {bytes(answer.body[:300])!r}")
            if number >= 0:
                taken[way].append(answer.ended_s - answer.started_s)
        number += 1
    for connection in ways:
        connection.close()
    return taken


def streaming(direct: str, gateway: str, pairs: int) -> dict[str, Any]:
    """Streamed answers about one picture that the engine knows. Gaps are between chunks that bring text.

    `together`: the share of chunks that arrive within 1 ms after the one before; a gateway that collects raises it.
    """
    first, gaps = uvloop.run(_streams(direct, gateway, pairs))
    found: dict[str, Any] = {
        "pairs": pairs,
        "added_first_p50_ms": 1e3 * (median(first[1]) - median(first[0])),
        "added_first_pairs_p50_ms": 1e3 * median([b - a for a, b in zip(*first, strict=True)]),
    }
    for way, name in enumerate(("direct", "through")):
        found[f"{name}_first_p50_ms"] = 1e3 * median(first[way])
        found[f"{name}_gap_p50_ms"] = 1e3 * median(gaps[way])
        found[f"{name}_gap_p99_ms"] = 1e3 * percentile(gaps[way], 0.99)
        found[f"{name}_together"] = sum(gap < TOGETHER_S for gap in gaps[way]) / max(1, len(gaps[way]))
    return found


async def _streams(
    direct: str, gateway: str, pairs: int
) -> tuple[tuple[list[float], list[float]], tuple[list[float], list[float]]]:
    ways = (AsyncConnection(direct), AsyncConnection(gateway))
    first: tuple[list[float], list[float]] = ([], [])
    gaps: tuple[list[float], list[float]] = ([], [])
    body = chat_body(0, 1, stream=True, picture_url=data_url(1, 900_001))
    for number in range(-2, pairs):
        for way in (0, 1) if number % 2 else (1, 0):
            answer = await ways[way].send(chat_request((direct, gateway)[way], body))
            said = read_streamed_chat(answer)
            if answer.status != 200 or not said.done:
                raise RuntimeError(f"status {answer.status}: {bytes(answer.body[:300])!r}")
            if number >= 0:
                first[way].append(said.tokens_s[0] - answer.started_s)
                gaps[way].extend(b - a for a, b in zip(said.tokens_s, said.tokens_s[1:], strict=False))
    for connection in ways:
        connection.close()
    return first, gaps
