"""Measures a gateway: latency and throughput of the users, counters in the engines' /metrics, CPU and memory."""

import asyncio
import base64
import time
from collections.abc import Sequence
from random import Random
from typing import Any

import orjson
import uvloop
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.gateways.gateway import MODEL, AsyncConnection, RunningGateway, chat_request, read_streamed_chat
from benchmarks.load import LoadSpec, UserProcesses, busiest_core_share, join_reports
from loadtest.content import SeededImage, question
from loadtest.host_info import cpu_s, memory_mb, read_cpu_time
from loadtest.http_client import fetch
from loadtest.statistics import median, percentile

COUNTED = (
    "vllm:prefix_cache_queries_total",
    "vllm:prefix_cache_hits_total",
    "vllm:mm_cache_queries_total",
    "vllm:mm_cache_hits_total",
    "vllm:request_success_total",
    "vllm:prompt_tokens_total",
    "vllm:generation_tokens_total",
    "vllm:num_preemptions_total",
)


def read_counters(text: str) -> dict[str, float]:
    """Returns the counters in COUNTED by name, each summed over all labels."""
    sums = dict.fromkeys(COUNTED, 0.0)
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name in sums:
                sums[sample.name] += sample.value
    return sums


def scrape_counters(engines: Sequence[str]) -> list[dict[str, float]]:
    return [read_counters(fetch(f"http://{engine}/metrics", timeout_s=20).decode()) for engine in engines]


def counter_increase(before: Sequence[dict[str, float]], after: Sequence[dict[str, float]]) -> list[dict[str, float]]:
    return [{name: late[name] - early[name] for name in late} for early, late in zip(before, after, strict=True)]


def hit_ratio(counted: Sequence[dict[str, float]], hits: str, queries: str) -> float:
    """The hit ratio over all engines (0 to 1); 0 if there were no queries."""
    query_count = sum(counters[queries] for counters in counted)
    return sum(counters[hits] for counters in counted) / query_count if query_count else 0.0


WARM_UP_PER_ENGINE = 4


def run_workload(order: LoadSpec, running: RunningGateway, engines: Sequence[str], processes: int) -> dict[str, Any]:
    """Warms up, runs the users, and returns the figures; times in seconds, memory in MiB."""
    users = UserProcesses(order, processes)
    try:
        uvloop.run(_warm_up_gateway(running.targets, WARM_UP_PER_ENGINE * len(engines)))
        sessions = list(running.parts.values())
        before, cpu, machine = scrape_counters(engines), cpu_s(sessions), read_cpu_time()
    except BaseException:
        users.end()
        raise
    reports = users.go()
    used, share = cpu_s(sessions) - cpu, read_cpu_time().share_since(machine)
    counted = counter_increase(before, scrape_counters(engines))
    report = join_reports(reports)
    answered = len(report.total_s)
    passed = report.ended_s - report.started_s
    per_engine = [counters["vllm:request_success_total"] for counters in counted]
    return {
        "answered": answered,
        "failed": sum(report.errors.values()),
        "errors": report.errors,
        "seconds": passed,
        "rps": answered / passed,
        "first_p50_s": median(report.first_s),
        "first_p95_s": percentile(report.first_s, 0.95),
        "first_p99_s": percentile(report.first_s, 0.99),
        "total_p50_s": median(report.total_s),
        "total_p95_s": percentile(report.total_s, 0.95),
        "total_p99_s": percentile(report.total_s, 0.99),
        "gap_p50_s": median(report.gap_s),
        "prefix_share": hit_ratio(counted, "vllm:prefix_cache_hits_total", "vllm:prefix_cache_queries_total"),
        "picture_share": hit_ratio(counted, "vllm:mm_cache_hits_total", "vllm:mm_cache_queries_total"),
        "preemptions": sum(counters["vllm:num_preemptions_total"] for counters in counted),
        "per_engine": per_engine,
        "busiest_engine": max(per_engine) / max(1.0, sum(per_engine)),
        "gateway_cpu_s": used,
        "gateway_memory_mb": memory_mb(sessions),
        "users_core_share": busiest_core_share(reports),
        "machine_share": share,
    }


async def _warm_up_gateway(targets: Sequence[str], count: int) -> None:
    """Sends requests with images that the work does not use, so that connections are open and code is loaded."""

    async def send_one(number: int) -> None:
        address = targets[number % len(targets)]
        content = [
            {"type": "image_url", "image_url": {"url": SeededImage("photo", f"warm-up {number}").data_url()}},
            {"type": "text", "text": f"Warm up {number}."},
        ]
        body = {"model": MODEL, "max_tokens": 2, "stream": True, "messages": [{"role": "user", "content": content}]}
        connection = AsyncConnection(address, f"127.2.100.{number + 1}")
        answer = await connection.send(chat_request(address, orjson.dumps(body)))
        connection.close()
        if answer.status != 200:
            raise RuntimeError(f"warm-up got {answer.status}: {answer.body[:300]!r}")

    await asyncio.gather(*(send_one(number) for number in range(count)))


JPEG_START = bytes.fromhex("ffd8ffc0000b080030004001011100ffda0008010100003f00")
"""Headers of a JPEG of 64 x 48 pixels. The gateway reads them."""


def chat_body(size: int, number: int, stream: bool = False, image_url: str | None = None) -> bytes:
    """A chat request of `size` bytes of JSON, different for each number. `image_url`: the image determines the size."""
    random = Random(f"body {size} {number}")

    def made(url: str) -> bytes:
        image = {"type": "image_url", "image_url": {"url": url}}
        first = [image, {"type": "text", "text": question(Random(f"first {number}"), 12)}]
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

    if image_url:
        return made(image_url)
    start = "data:image/jpeg;base64,"
    room = size - len(made(start))
    if room < 0:
        raise ValueError(f"size: expected at least {size - room} bytes for a chat with an image, got {size}")
    pixels = random.randbytes(max(0, room // 4 * 3 - len(JPEG_START)))
    return made(start + base64.b64encode(JPEG_START + pixels).decode()).ljust(size)


SIZES = {"3 KB": 3_000, "200 KB": 200_000, "2 MB": 2_000_000}
CONNECTIONS = 4
BODIES = 8
IDLE_S = 2.0


def cpu_per_request(running: RunningGateway, size: int, seconds: float) -> dict[str, Any]:
    """Sends requests of `size` bytes for `seconds`, 4 at a time. Returns CPU µs per request, by part and in total.

    The gateway's idle use (health checks) is measured first and subtracted.
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
    time.sleep(0.3)  # work after the answer (the gateway's log) is part of the request
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
                    raise RuntimeError(f"{address} answered {answer.status}: {answer.body[:300]!r}")
                count += 1
        finally:
            connection.close()
        return count

    return sum(await asyncio.gather(*(client(number) for number in range(CONNECTIONS))))


TOGETHER_S = 0.001
WARM_UP = 10


def added_latency(direct: str, gateway: str, size: int, seconds: float) -> dict[str, Any]:
    """Latency of complete answers, not streamed, in ms. `added`: percentiles of the differences within each pair."""
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
    times_s: tuple[list[float], list[float]] = ([], [])
    until = time.monotonic() + seconds
    number = -WARM_UP
    while time.monotonic() < until or number < WARM_UP:
        body = chat_body(size, number % 8)
        # The first of the two requests meets colder caches, so the order alternates.
        order = (0, 1) if number % 2 else (1, 0)
        for way in order:
            answer = await ways[way].send(chat_request((direct, gateway)[way], body))
            if answer.status != 200:
                raise RuntimeError(f"status {answer.status}: {answer.body[:300]!r}")
            if number >= 0:
                times_s[way].append(answer.ended_s - answer.started_s)
        number += 1
    for connection in ways:
        connection.close()
    return times_s


def streaming(direct: str, gateway: str, pairs: int) -> dict[str, Any]:
    """Streamed answers about one image that is in the engine's cache. Gaps are the times between chunks with text.

    `together`: the fraction of chunks that arrive within 1 ms of the chunk before; a gateway that buffers raises it.
    """
    first, gaps = uvloop.run(_streams(direct, gateway, pairs))
    figures: dict[str, Any] = {
        "pairs": pairs,
        "added_first_p50_ms": 1e3 * (median(first[1]) - median(first[0])),
        "added_first_pairs_p50_ms": 1e3 * median([b - a for a, b in zip(*first, strict=True)]),
    }
    for way, name in enumerate(("direct", "through")):
        figures[f"{name}_first_p50_ms"] = 1e3 * median(first[way])
        figures[f"{name}_gap_p50_ms"] = 1e3 * median(gaps[way])
        figures[f"{name}_gap_p99_ms"] = 1e3 * percentile(gaps[way], 0.99)
        figures[f"{name}_together"] = sum(gap < TOGETHER_S for gap in gaps[way]) / max(1, len(gaps[way]))
    return figures


async def _streams(
    direct: str, gateway: str, pairs: int
) -> tuple[tuple[list[float], list[float]], tuple[list[float], list[float]]]:
    ways = (AsyncConnection(direct), AsyncConnection(gateway))
    first: tuple[list[float], list[float]] = ([], [])
    gaps: tuple[list[float], list[float]] = ([], [])
    body = chat_body(0, 1, stream=True, image_url=SeededImage("photo", "stream").data_url())
    for number in range(-2, pairs):
        for way in (0, 1) if number % 2 else (1, 0):
            answer = await ways[way].send(chat_request((direct, gateway)[way], body))
            parsed = read_streamed_chat(answer)
            if answer.status != 200 or not parsed.done:
                raise RuntimeError(f"status {answer.status}: {answer.body[:300]!r}")
            if number >= 0:
                first[way].append(parsed.tokens_s[0] - answer.started_s)
                gaps[way].extend(b - a for a, b in zip(parsed.tokens_s, parsed.tokens_s[1:], strict=False))
    for connection in ways:
        connection.close()
    return first, gaps
