"""One kind of work through one gateway: what users saw, what engines counted, what it cost."""

import asyncio
from collections.abc import Sequence
from typing import Any

import orjson
import uvloop

from benchmarks.gateways.gateway import MODEL, Running
from benchmarks.measure import counters
from benchmarks.measure.http import Connection, request
from benchmarks.measure.load import Order
from benchmarks.measure.users import Users, busiest, joined
from benchmarks.workloads.pictures import data_url
from loadtest.host_info import read_cpu_time
from loadtest.process_group import cpu_s, memory_mb
from loadtest.statistics import median, percentile

WARM_UP_PER_ENGINE = 4


def work_through(order: Order, running: Running, engines: Sequence[str], processes: int) -> dict[str, Any]:
    """Warms up, lets the users go, and returns figures; times in seconds, memory in MiB."""
    users = Users(order, processes)
    try:
        uvloop.run(_warm_up(running.targets, WARM_UP_PER_ENGINE * len(engines)))
        sessions = list(running.parts.values())
        before, cpu, machine = counters.scrape(engines), cpu_s(sessions), read_cpu_time()
    except BaseException:
        users.end()
        raise
    reports = users.go()
    used, share = cpu_s(sessions) - cpu, read_cpu_time().share_since(machine)
    counted = counters.difference(before, counters.scrape(engines))
    report = joined(reports)
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
        "prefix_share": counters.share(counted, "vllm:prefix_cache_hits_total", "vllm:prefix_cache_queries_total"),
        "picture_share": counters.share(counted, "vllm:mm_cache_hits_total", "vllm:mm_cache_queries_total"),
        "preemptions": sum(one["vllm:num_preemptions_total"] for one in counted),
        "per_engine": per_engine,
        "busiest_engine": max(per_engine) / max(1.0, sum(per_engine)),
        "gateway_cpu_s": used,
        "gateway_memory_mb": memory_mb(sessions),
        "users_core_share": busiest(reports),
        "machine_share": share,
    }


async def _warm_up(targets: Sequence[str], count: int) -> None:
    """Requests about a picture that the work does not use: connections are made, code is loaded."""

    async def one(number: int) -> None:
        address = targets[number % len(targets)]
        content = [
            {"type": "image_url", "image_url": {"url": data_url(0, number)}},
            {"type": "text", "text": f"Warm up {number}."},
        ]
        body = {"model": MODEL, "max_tokens": 2, "stream": True, "messages": [{"role": "user", "content": content}]}
        connection = Connection(address, f"127.2.100.{number + 1}")
        answer = await connection.ask(request(address, orjson.dumps(body)))
        connection.close()
        if answer.status != 200:
            raise RuntimeError(f"warm-up got {answer.status}: {bytes(answer.body[:300])!r}")

    await asyncio.gather(*(one(number) for number in range(count)))
