"""Measures the load of a pool from the engines' counters, the gateway's log and the GPU exporter."""

import re
import time
from collections.abc import Iterable, Sequence

import httpx

from manyeyes.controller.autoscaling.demand import PoolLoad
from manyeyes.controller.bounded import RequestFailed, bounded_request
from manyeyes.controller.health.vllm_metrics import EngineLoad
from manyeyes.controller.membership.membership_store import FleetMember
from manyeyes.controller.telemetry.access_log_receiver import AccessLog

METRIC = "DCGM_FI_DEV_GPU_UTIL"
TIMEOUT_S = 5.0
MAX_BYTES = 4 << 20
_SAMPLE = re.compile(rf"^{METRIC}\{{(?P<labels>[^}}]*)\}}\s+(?P<value>[0-9.eE+-]+)", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="([^"]*)"')


async def fetch_gpu_utilization(client: httpx.AsyncClient, url: str) -> dict[str, float]:
    """{GPU number and GPU UUID: utilization from 0 to 1}; empty when the exporter does not respond."""
    try:
        reply = await bounded_request(client, "GET", url, TIMEOUT_S, max_bytes=MAX_BYTES)
    except RequestFailed:
        return {}
    return parse_gpu_utilization(reply.text) if reply.status == 200 else {}


def parse_gpu_utilization(text: str) -> dict[str, float]:
    utilization: dict[str, float] = {}
    for sample in _SAMPLE.finditer(text):
        labels = dict(_LABEL.findall(sample["labels"]))
        try:
            busy = min(1.0, max(0.0, float(sample["value"]) / 100))
        except ValueError:
            continue
        for name in (labels.get("gpu"), labels.get("UUID")):
            if name:
                utilization[name] = busy
    return utilization


def average_utilization(use: dict[str, float], gpus: Iterable[str]) -> float | None:
    """The average utilization of `gpus`; None when the value of any of them is unknown."""
    values = [use.get(gpu) for gpu in gpus]
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


STALE_S = 60.0
"""A saturated engine reports its load late; after this time its last report is ignored."""
TIMES_OF_S = 60.0


class PoolSignals:
    """Measures one pool. Stores the engines' totals of the previous sample."""

    def __init__(self, pool: str) -> None:
        self.pool = pool
        self._queues: dict[str, tuple[float, float]] = {}

    def collect(
        self,
        now_s: float,
        serving: Sequence[FleetMember],
        started: Sequence[FleetMember],
        requests: AccessLog,
        gpus: dict[str, float],
    ) -> PoolLoad:
        """Measures the load. `serving` engines get new requests; `started` are these and the draining engines."""
        return PoolLoad(
            at_s=now_s,
            serving=len(serving),
            in_flight=_in_flight(serving, started),
            queue_time_s=self._queue_s(started),
            p95_s=requests.p95_s_of_last(TIMES_OF_S, self.pool),
            gpu=average_utilization(gpus, {gpu for member in serving for gpu in member.engine.gpus}),
        )

    def _queue_s(self, members: Sequence[FleetMember]) -> float | None:
        """Average wait of the requests that left the queues since the previous sample."""
        waited_s = count = 0.0
        for member in members:
            if (load := _fresh(member)) is None:
                continue
            totals = (load.queue_s_total, load.queue_requests_total)
            before = self._queues.get(member.engine.name, totals)
            self._queues[member.engine.name] = totals
            if totals[1] > before[1]:  # a smaller total comes from a restarted process, whose totals start at 0
                waited_s += totals[0] - before[0]
                count += totals[1] - before[1]
        return max(0.0, waited_s / count) if count else None


def _in_flight(serving: Sequence[FleetMember], started: Sequence[FleetMember]) -> float | None:
    """Requests in all engines. An engine without a fresh report counts as the average of the others.

    None when no serving engine has a fresh report.
    """
    known = [load.in_flight for member in serving if (load := _fresh(member)) is not None]
    if not known:
        return None
    draining = [member for member in started if member not in serving]
    in_draining = sum(load.in_flight for member in draining if (load := _fresh(member)) is not None)
    return sum(known) * len(serving) / len(known) + in_draining


def _fresh(member: FleetMember) -> EngineLoad | None:
    load = member.load
    return load if load is not None and time.monotonic() - load.at_s <= STALE_S else None
