"""What a pool has to do, from what its engines say, what the gateway logs and what the GPUs' exporter tells."""

import time
from collections.abc import Sequence

from manyeyes.controller.autoscaling import gpu_utilization
from manyeyes.controller.autoscaling.demand import Load
from manyeyes.controller.health.vllm_metrics import Load as EngineLoad
from manyeyes.controller.membership.fleet import Member
from manyeyes.controller.telemetry.access_log_receiver import RequestLog

STALE_S = 60.0
"""A saturated engine tells its load late; after this long it says nothing any more."""
TIMES_OF_S = 60.0


class Observer:
    """One pool's. Keeps the engines' totals of the look before."""

    def __init__(self, pool: str) -> None:
        self.pool = pool
        self._queues: dict[str, tuple[float, float]] = {}

    def look(
        self,
        now_s: float,
        serving: Sequence[Member],
        started: Sequence[Member],
        requests: RequestLog,
        gpus: dict[str, float],
    ) -> Load:
        """`serving` get new requests; `started` are these and those that drain."""
        gpu = (
            gpu_utilization.of(gpus, dict.fromkeys(gpu for member in serving for gpu in member.engine.gpus))
            if gpus
            else None
        )
        return Load(
            at_s=now_s,
            serving=len(serving),
            in_flight=_in_flight(serving, started),
            queue_s=self._queue_s(started),
            p95_s=requests.p95_s_of_last(TIMES_OF_S, self.pool),
            gpu=gpu,
        )

    def _queue_s(self, members: Sequence[Member]) -> float | None:
        """Average wait of the requests that left the queues since the look before."""
        waited_s = count = 0.0
        for member in members:
            if (load := _fresh(member)) is None:
                continue
            totals = (load.queue_s_total, load.queue_requests_total)
            before = self._queues.get(member.engine.name, totals)
            self._queues[member.engine.name] = totals
            if totals[1] > before[1]:  # fewer: another process, whose totals began anew
                waited_s += totals[0] - before[0]
                count += totals[1] - before[1]
        return max(0.0, waited_s / count) if count else None


def _in_flight(serving: Sequence[Member], started: Sequence[Member]) -> float | None:
    """All engines'. One that says nothing counts as the others do on average; None where no serving one says anything."""
    known = [load.in_flight for member in serving if (load := _fresh(member)) is not None]
    if not known:
        return None
    others = [member for member in started if member not in serving]
    going = sum(load.in_flight for member in others if (load := _fresh(member)) is not None)
    return sum(known) * len(serving) / len(known) + going


def _fresh(member: Member) -> EngineLoad | None:
    load = member.load
    return load if load is not None and time.monotonic() - load.at_s <= STALE_S else None
