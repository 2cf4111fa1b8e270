"""One kind of work through one gateway: what users saw, what engines counted in their /metrics, what it cost."""

import asyncio
import urllib.request
from collections.abc import Sequence
from typing import Any

import orjson
import uvloop
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.gateways.gateway import MODEL, RunningGateway
from benchmarks.measure.http import AsyncConnection, chat_request
from benchmarks.measure.load import LoadSpec, UserProcesses, busiest_core_share, join_reports
from benchmarks.workloads import data_url
from loadtest.host_info import read_cpu_time
from loadtest.process_group import cpu_s, memory_mb
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
    """Sums over all labels, by name, of those in COUNTED."""
    sums = dict.fromkeys(COUNTED, 0.0)
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name in sums:
                sums[sample.name] += sample.value
    return sums


def scrape_counters(engines: Sequence[str]) -> list[dict[str, float]]:
    """One dictionary per engine."""
    found = []
    for engine in engines:
        with urllib.request.urlopen(f"http://{engine}/metrics", timeout=20) as reply:
            found.append(read_counters(reply.read().decode()))
    return found


def counter_increase(before: Sequence[dict[str, float]], after: Sequence[dict[str, float]]) -> list[dict[str, float]]:
    return [{name: late[name] - early[name] for name in late} for early, late in zip(before, after, strict=True)]


def hit_ratio(counted: Sequence[dict[str, float]], hits: str, queries: str) -> float:
    """0 to 1 over all engines; 0 where nothing was asked."""
    asked = sum(one[queries] for one in counted)
    return sum(one[hits] for one in counted) / asked if asked else 0.0


WARM_UP_PER_ENGINE = 4


def run_workload(order: LoadSpec, running: RunningGateway, engines: Sequence[str], processes: int) -> dict[str, Any]:
    """Warms up, lets the users go, and returns figures; times in seconds, memory in MiB."""
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
    per_engine = [one["vllm:request_success_total"] for one in counted]
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
        "preemptions": sum(one["vllm:num_preemptions_total"] for one in counted),
        "per_engine": per_engine,
        "busiest_engine": max(per_engine) / max(1.0, sum(per_engine)),
        "gateway_cpu_s": used,
        "gateway_memory_mb": memory_mb(sessions),
        "users_core_share": busiest_core_share(reports),
        "machine_share": share,
    }


async def _warm_up_gateway(targets: Sequence[str], count: int) -> None:
    """Requests about a picture that the work does not use: connections are made, code is loaded."""

    async def one(number: int) -> None:
        address = targets[number % len(targets)]
        content = [
            {"type": "image_url", "image_url": {"url": data_url(0, number)}},
            {"type": "text", "text": f"Warm up {number}."},
        ]
        body = {"model": MODEL, "max_tokens": 2, "stream": True, "messages": [{"role": "user", "content": content}]}
        connection = AsyncConnection(address, f"127.2.100.{number + 1}")
        answer = await connection.send(chat_request(address, orjson.dumps(body)))
        connection.close()
        if answer.status != 200:
            raise RuntimeError(f"warm-up got {answer.status}: {bytes(answer.body[:300])!r}")

    await asyncio.gather(*(one(number) for number in range(count)))
