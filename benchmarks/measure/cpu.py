"""CPU that a gateway uses for one request, when what stands behind it answers at once."""

import asyncio
import time
from typing import Any

import uvloop

from benchmarks.gateways.gateway import Running
from benchmarks.measure.http import Connection, request
from benchmarks.measure.request_bodies import chat_body
from loadtest.process_group import cpu_s, memory_mb

SIZES = {"3 KB": 3_000, "200 KB": 200_000, "2 MB": 2_000_000}
CONNECTIONS = 4
BODIES = 8
IDLE_S = 2.0


def cpu_per_request(running: Running, size: int, seconds: float) -> dict[str, Any]:
    """For `seconds` s of requests of `size` bytes, 4 at a time: microseconds per request, by part and in all.

    What the gateway uses while idle (health checks) is measured first and taken off.
    """
    address = running.targets[0]
    requests = [request(address, chat_body(size, number)) for number in range(BODIES)]
    uvloop.run(_ask(address, requests, min(1.0, seconds / 4)))
    sessions = {part: [session] for part, session in running.parts.items()}

    def used() -> dict[str, float]:
        return {part: cpu_s(session) for part, session in sessions.items()}

    before_idle = used()
    time.sleep(IDLE_S)
    before = used()
    idle = {part: (before[part] - before_idle[part]) / IDLE_S for part in sessions}
    started = time.monotonic()
    count = uvloop.run(_ask(address, requests, seconds))
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


async def _ask(address: str, requests: list[bytes], seconds: float) -> int:
    until = time.monotonic() + seconds

    async def client(number: int) -> int:
        connection = Connection(address)
        count = 0
        try:
            while time.monotonic() < until or count < 5:
                answer = await connection.ask(requests[(number + count) % len(requests)], 60)
                if answer.status != 200:
                    raise RuntimeError(f"{address} answered {answer.status}: {bytes(answer.body[:300])!r}")
                count += 1
        finally:
            connection.close()
        return count

    return sum(await asyncio.gather(*(client(number) for number in range(CONNECTIONS))))
