"""What a gateway adds for one client: each request is sent twice, past the gateway and through it, in turns."""

import time
from typing import Any

import uvloop

from benchmarks.measure.http import Connection, request, streamed
from benchmarks.measure.request_bodies import chat_body
from benchmarks.workloads.pictures import data_url
from loadtest.statistics import median, percentile

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
    ways = (Connection(direct), Connection(gateway))
    taken: tuple[list[float], list[float]] = ([], [])
    until = time.monotonic() + seconds
    number = -WARM_UP
    while time.monotonic() < until or number < WARM_UP:
        body = chat_body(size, number % 8)
        # Whoever goes first finds colder caches: they take turns.
        order = (0, 1) if number % 2 else (1, 0)
        for way in order:
            answer = await ways[way].ask(request((direct, gateway)[way], body))
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
    ways = (Connection(direct), Connection(gateway))
    first: tuple[list[float], list[float]] = ([], [])
    gaps: tuple[list[float], list[float]] = ([], [])
    body = chat_body(0, 1, stream=True, picture_url=data_url(1, 900_001))
    for number in range(-2, pairs):
        for way in (0, 1) if number % 2 else (1, 0):
            answer = await ways[way].ask(request((direct, gateway)[way], body))
            said = streamed(answer)
            if answer.status != 200 or not said.complete:
                raise RuntimeError(f"status {answer.status}: {bytes(answer.body[:300])!r}")
            if number >= 0:
                first[way].append(said.words_s[0] - answer.started_s)
                gaps[way].extend(b - a for a, b in zip(said.words_s, said.words_s[1:], strict=False))
    for connection in ways:
        connection.close()
    return first, gaps
