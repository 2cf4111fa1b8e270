"""Measures CPU and memory of each container, and how often Docker restarted engines, for Prometheus.

Docker reads these values from cgroups. cAdvisor would need the host's whole /sys and Docker's socket for them.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx

from manyeyes.controller.bounded import RequestFailed, bounded_request
from manyeyes.controller.config_sync.effective_config import EffectiveConfig
from manyeyes.controller.metrics import CONTAINER_CPU, CONTAINER_MEMORY, CONTAINER_MEMORY_LIMIT, CONTAINER_RESTARTS
from manyeyes.controller.supervision import keep_running, record_failure
from manyeyes.render.docker_socket_filter import watched_services

REQUEST_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class ContainerUsage:
    cpu_s: float
    memory_bytes: int
    limit_bytes: int


def parse_usage(stats: Any) -> ContainerUsage | None:
    """Parses Docker's /stats. None when the container does not run: then the response has no memory values."""
    try:
        memory = stats["memory_stats"]
        counted = memory.get("stats", {})
        # The page cache; cgroups v1 call it total_inactive_file. `docker stats` subtracts it too: it is reclaimable.
        files = counted.get("inactive_file", counted.get("total_inactive_file", 0))
        numbers = [
            _count(number)
            for number in (stats["cpu_stats"]["cpu_usage"]["total_usage"], memory["usage"], files, memory["limit"])
        ]
    except (LookupError, TypeError, AttributeError):
        return None
    cpu_ns, usage, files, limit = numbers
    if cpu_ns is None or usage is None or files is None or limit is None:
        return None
    return ContainerUsage(cpu_s=cpu_ns / 1e9, memory_bytes=max(0, usage - files), limit_bytes=limit)


def _count(value: Any) -> int | None:
    is_count = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**64
    return value if is_count else None


class ContainerStats:
    """Updates the metrics of the containers of one Compose project."""

    def __init__(self, effective: EffectiveConfig, client: httpx.AsyncClient, url: str) -> None:
        self.effective = effective
        self.client = client
        self.url = url
        self._cpu_s: dict[str, float] = {}

    async def run(self) -> None:
        while True:
            await asyncio.sleep(self.effective.cluster.controller.container_interval_s)
            await self.poll()

    async def poll(self) -> None:
        cluster = self.effective.cluster
        engines = {engine.name for engine in cluster.started_engines}
        for service in watched_services(cluster):
            try:
                await self._poll_container(service, f"/containers/{cluster.name}-{service}-1", service in engines)
            except Exception:
                # One invalid response must not hide the other containers.
                record_failure("container_use", service=service)

    async def _poll_container(self, service: str, container: str, is_engine: bool) -> None:
        self._record(service, parse_usage(await self._fetch(f"{container}/stats")))
        if is_engine:
            details = await self._fetch(f"{container}/json")
            if isinstance(details, dict) and (restarts := _count(details.get("RestartCount"))) is not None:
                CONTAINER_RESTARTS.labels(service).set(restarts)

    def _record(self, service: str, use: ContainerUsage | None) -> None:
        before_s = self._cpu_s.pop(service, None)
        if use is None:
            for metric in (CONTAINER_MEMORY, CONTAINER_MEMORY_LIMIT):
                metric.remove_by_labels({"service": service})
            return
        # Docker's counter starts at 0 with the container. CPU time before the first poll is not counted.
        more_s = 0.0 if before_s is None else use.cpu_s - before_s
        CONTAINER_CPU.labels(service).inc(more_s if more_s >= 0 else use.cpu_s)
        CONTAINER_MEMORY.labels(service).set(use.memory_bytes)
        CONTAINER_MEMORY_LIMIT.labels(service).set(use.limit_bytes)
        self._cpu_s[service] = use.cpu_s

    async def _fetch(self, path: str) -> Any:
        """None without a response: the autoscaler reports an unreachable filter; a missing container uses nothing."""
        try:
            reply = await bounded_request(self.client, "GET", self.url + path, REQUEST_TIMEOUT_S)
            return reply.json() if reply.status == 200 else None
        except (RequestFailed, ValueError):
            return None


@contextlib.asynccontextmanager
async def collect_container_stats(effective: EffectiveConfig, url: str) -> AsyncIterator[None]:
    """Collects the metrics while the context lasts. Does nothing with `controller.containers: false`."""
    if not effective.cluster.controller.containers:
        yield
        return
    async with httpx.AsyncClient(trust_env=False) as client:
        running = asyncio.create_task(keep_running("container_stats", ContainerStats(effective, client, url).run))
        try:
            yield
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
