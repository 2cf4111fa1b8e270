"""Prints how long the gateway's scan of the most expensive request bodies occupies an nginx worker.

    .venv/bin/python -m tests.integration.scan.cost

The time is CPU time of the worker process, from /proc, so a busy machine changes it little. Each body is read once and
several times within one request, and the difference counts: nginx receives it only once. Exits with 1 if a body takes
more than LIMIT_MS.
"""

import sys
import tempfile
from pathlib import Path
from statistics import median

from tests.integration.scan.server import Modules, modules
from tests.integration.scan.worst_bodies import bodies

LIMIT_MS = 20
TIMES = 25
REPEATS = 3


def cpu_ms(njs: Modules, body: bytes, times: int) -> tuple[float, str]:
    """CPU time of the worker for one request whose body is read `times` times, and the answer."""
    before = _cpu_ns(njs.worker)
    answer = njs.client.post(f"/cost?times={times}", content=body).text
    return (_cpu_ns(njs.worker) - before) / 1e6, answer


def _cpu_ns(process: int) -> int:
    return int(Path(f"/proc/{process}/schedstat").read_text().split()[0])


def main() -> int:
    worst = 0.0
    print(f"{'body':32} {'bytes':>11} {'ms in njs':>10}  result")
    with tempfile.TemporaryDirectory() as folder, modules(Path(folder)) as njs:
        for name, body in bodies():
            once = [cpu_ms(njs, body, 1) for _ in range(REPEATS)]
            often = [cpu_ms(njs, body, TIMES) for _ in range(REPEATS)]
            cost = (median(ms for ms, _ in often) - median(ms for ms, _ in once)) / (TIMES - 1)
            worst = max(worst, cost)
            print(f"{name:32} {len(body):11,} {cost:10.2f}  {once[0][1][:90]}", flush=True)
    print(f"worst: {worst:.2f} ms, limit: {LIMIT_MS} ms")
    return 1 if worst > LIMIT_MS else 0


if __name__ == "__main__":
    sys.exit(main())
