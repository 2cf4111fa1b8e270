"""Memory and open files of a part, read in its container from /proc, so that a restart of it cannot hide anything."""

import csv
import threading
import time
from dataclasses import astuple, dataclass, field, fields
from pathlib import Path

from benchmarks.chaos.containers import Containers
from manyeyes.cli.process import CommandFailed

EVERY_S = 10.0
# RssAnon: what the processes allocated themselves; files that they map, and nginx's zones of fixed size, are not in it.
READ = (
    'n=0; m=0; f=0; for p in /proc/[0-9]*; do [ "$p" = "/proc/$$" ] && continue; '
    'r=$(grep RssAnon "$p/status" 2>/dev/null) || continue; set -- $r; m=$((m + $2)); '
    'f=$((f + $(ls "$p/fd" 2>/dev/null | wc -l))); n=$((n + 1)); done; echo $n $m $f'
)


@dataclass(frozen=True)
class Point:
    """One look at one part. `at_s`: since the run began."""

    at_s: float
    service: str
    processes: int
    memory_mb: float
    files: int


@dataclass
class Gauge:
    """Looks every ten seconds, and writes each look down as it comes."""

    containers: Containers
    services: tuple[str, ...]
    file: Path
    points: list[Point] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        if self._thread:
            self._thread.join(timeout=120)

    def _run(self) -> None:
        began = time.monotonic()
        with self.file.open("w", newline="") as output:
            lines = csv.writer(output)
            lines.writerow([one.name for one in fields(Point)])
            while True:
                for service in self.services:
                    if point := self._look(service, time.monotonic() - began):
                        self.points.append(point)
                        lines.writerow(astuple(point))
                output.flush()
                if self._over.wait(EVERY_S):
                    return

    def _look(self, service: str, at_s: float) -> Point | None:
        try:
            count, kilobytes, files = (int(n) for n in self.containers.inside(service, ["sh", "-c", READ]).split())
        except (CommandFailed, TimeoutError, ValueError):
            return None  # it is being restarted, or paused
        return Point(round(at_s, 1), service, count, round(kilobytes / 1024, 1), files)
