"""Memory and open files of a container, and whether they grow over a long run.

Read in the container from /proc, so that a restart of it cannot hide anything.
"""

import csv
import time
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from itertools import combinations
from pathlib import Path
from typing import Any

from benchmarks.chaos.experiment import ClusterContainers
from benchmarks.chaos.load import Repeating
from loadtest.statistics import median
from manyeyes.cli.process import CommandFailed

# RssAnon: what the processes allocated themselves; files that they map, and nginx's zones of fixed size, are not in it.
READ = (
    'n=0; m=0; f=0; for p in /proc/[0-9]*; do [ "$p" = "/proc/$$" ] && continue; '
    'r=$(grep RssAnon "$p/status" 2>/dev/null) || continue; set -- $r; m=$((m + $2)); '
    'f=$((f + $(ls "$p/fd" 2>/dev/null | wc -l))); n=$((n + 1)); done; echo $n $m $f'
)


@dataclass(frozen=True)
class ResourceSample:
    """One look at one part. `at_s`: since the run began."""

    at_s: float
    service: str
    processes: int
    memory_mb: float
    files: int


class ResourceSampler(Repeating):
    """Looks every ten seconds, and writes each look down as it comes."""

    every_s = 10.0
    ends_within_s = 120.0

    def __init__(self, containers: ClusterContainers, services: tuple[str, ...], file: Path) -> None:
        super().__init__()
        self.containers, self.services, self.file = containers, services, file
        self.points: list[ResourceSample] = []
        self._began = time.monotonic()

    def start(self) -> None:
        self._began = time.monotonic()
        self._write([tuple(one.name for one in fields(ResourceSample))])
        super().start()

    def once(self) -> None:
        looks = [self._look(service, time.monotonic() - self._began) for service in self.services]
        found = [one for one in looks if one]
        self.points += found
        self._write([astuple(one) for one in found])

    def _write(self, rows: list[tuple[Any, ...]]) -> None:
        with self.file.open("a", newline="") as output:
            csv.writer(output).writerows(rows)

    def _look(self, service: str, at_s: float) -> ResourceSample | None:
        try:
            count, kilobytes, files = (int(n) for n in self.containers.inside(service, ["sh", "-c", READ]).split())
        except (CommandFailed, TimeoutError, ValueError):
            return None  # it is being restarted, or paused
        return ResourceSample(round(at_s, 1), service, count, round(kilobytes / 1024, 1), files)


WARM_SHARE = 0.1
"""The first tenth is left out: caches and pools fill."""
THIRD = 0.3
GROWS_SHARE = 0.10
MAX_POINTS = 300
MIN_DURATION_S = 900.0
"""In a shorter run nothing has settled: pools of connections and of memory still fill, so it is no evidence of growth."""


@dataclass(frozen=True)
class ResourceGrowth:
    """Medians of an early and of the last third, and the usual slope between any two points (Theil-Sen), for an hour."""

    early: float
    late: float
    an_hour: float
    grows: bool


def measure_growth(points: Sequence[tuple[float, float]], least: float) -> ResourceGrowth:
    """`points`: (seconds, value). It grows when it gained more than a tenth, and more than `least`, between early and late; never in less than 15 minutes."""
    if not points:
        return ResourceGrowth(0, 0, 0, False)
    start_s, end_s = points[0][0], points[-1][0]
    length_s = max(1e-9, end_s - start_s)
    warm = [(at_s, value) for at_s, value in points if at_s >= start_s + WARM_SHARE * length_s] or list(points)
    early = [value for at_s, value in warm if at_s <= start_s + (WARM_SHARE + THIRD) * length_s] or [warm[0][1]]
    late = [value for at_s, value in warm if at_s >= end_s - THIRD * length_s] or [warm[-1][1]]
    thinned = warm[:: max(1, len(warm) // MAX_POINTS)]
    slopes = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in combinations(thinned, 2) if b[0] > a[0]]
    first, last = median(early), median(late)
    grows = length_s >= MIN_DURATION_S and last - first > max(least, GROWS_SHARE * first)
    return ResourceGrowth(first, last, 3600 * median(slopes), grows)
