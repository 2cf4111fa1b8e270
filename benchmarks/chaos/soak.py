"""`python -m benchmarks.chaos.soak`: a long run at a fraction of the cluster's throughput, with a fault every minute; `manyeyes soak` runs it.

Faults are injected only where they cost no request: into engines that are not alone in their pool, and into services that no request
passes through. The gateway, the controller and the web page get no faults, because a restart would hide a memory leak; `manyeyes chaos` covers them.
Exit codes: 0 no request lost and no growth; 1 a lost request or growth; 2 nothing was done; 130 Ctrl-C.
"""

import argparse
import csv
import dataclasses
import itertools
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from itertools import combinations
from pathlib import Path
from typing import Any

from benchmarks.chaos.experiment import (
    ChaosTarget,
    ClusterContainers,
    UnfitTarget,
    exit_code,
    find_target,
    inject_fault,
    run_restored,
)
from benchmarks.chaos.faults import Fault, fault_table
from benchmarks.chaos.load import LoadUsers, PageVisitor
from benchmarks.chaos.report import is_cut
from loadtest import users
from loadtest.gateway_client import GatewayUnusable
from loadtest.host_info import Repeating, read_host_info
from loadtest.result_files import ROOT, shown
from loadtest.run_spec import KEY
from loadtest.statistics import Sample, median, percentile
from manyeyes.charts.svg import draw_panels
from manyeyes.charts.templates import markdown_table
from manyeyes.cli.process import CommandFailed
from manyeyes.cli.terminal import print_error, print_line, print_ok, step
from manyeyes.config.loader import ConfigError

# RssAnon: memory that the processes allocated. It excludes mapped files and nginx's zones, which have a fixed size.
READ = (
    'n=0; m=0; f=0; for p in /proc/[0-9]*; do [ "$p" = "/proc/$$" ] && continue; '
    'r=$(grep RssAnon "$p/status" 2>/dev/null) || continue; set -- $r; m=$((m + $2)); '
    'f=$((f + $(ls "$p/fd" 2>/dev/null | wc -l))); n=$((n + 1)); done; echo $n $m $f'
)


@dataclass(frozen=True)
class ResourceSample:
    """Resources of one service at one time. `at_s`: seconds since the start of the run."""

    at_s: float
    service: str
    processes: int
    memory_mb: float
    files: int


class ResourceSampler(Repeating):
    """Samples the services every ten seconds and writes each sample to a file immediately."""

    every_s = 10.0
    stop_timeout_s = 120.0

    def __init__(self, containers: ClusterContainers, services: tuple[str, ...], file: Path) -> None:
        super().__init__()
        self.containers, self.services, self.file = containers, services, file
        self.points: list[ResourceSample] = []
        self._began = time.monotonic()

    def start(self) -> None:
        self._began = time.monotonic()
        self._write([tuple(column.name for column in fields(ResourceSample))])
        super().start()

    def once(self) -> None:
        samples = [self._sample(service, time.monotonic() - self._began) for service in self.services]
        taken = [sample for sample in samples if sample]
        self.points += taken
        self._write([astuple(sample) for sample in taken])

    def _write(self, rows: list[tuple[Any, ...]]) -> None:
        with self.file.open("a", newline="") as output:
            csv.writer(output).writerows(rows)

    def _sample(self, service: str, at_s: float) -> ResourceSample | None:
        try:
            count, kilobytes, files = (int(n) for n in self.containers.inside(service, ["sh", "-c", READ]).split())
        except (CommandFailed, TimeoutError, ValueError):
            return None  # it is restarting or paused
        return ResourceSample(round(at_s, 1), service, count, round(kilobytes / 1024, 1), files)


WARM_SHARE = 0.1
"""The first tenth is left out, because caches and pools fill up."""
THIRD = 0.3
GROWS_SHARE = 0.10
MAX_POINTS = 300
MIN_DURATION_S = 900.0
"""A shorter run cannot show growth: connection pools and memory pools still fill up."""


@dataclass(frozen=True)
class ResourceGrowth:
    """Medians of an early third and of the last third, and the median slope between two points (Theil-Sen) per hour."""

    early: float
    late: float
    an_hour: float
    grows: bool


def measure_growth(points: Sequence[tuple[float, float]], least: float) -> ResourceGrowth:
    """Tests whether a value grows. `points`: (seconds, value).

    It grows if it gained more than a tenth, and more than `least`, between the early and the last third. A run under 15
    minutes never counts as growth.
    """
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


WATCHED = ("gateway", "controller", "webui")
EVERY_S = 60.0
FULL_S = 30.0
FULL_WARM_S = 10.0
USERS_PER_ENGINE = 12
GAUGED = (("memory_mb", "memory, MB", 5.0), ("files", "open files", 20.0))
"""Attribute, title, and the smallest gain that counts as growth."""


@dataclass(frozen=True)
class SoakMinute:
    """Figures of the requests that ended in one minute."""

    minute: int
    fault: str
    answered: int
    failed: int
    cut: int
    p95_s: float


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog="manyeyes soak", description="A long run with a fault every minute.")
    p.add_argument("--config", type=Path, default=Path("config/cluster.yaml"))
    p.add_argument("--minutes", type=int, default=60)
    p.add_argument("--load", type=float, default=0.8, help="fraction of the throughput of a closed loop; default 0.8")
    p.add_argument("--scenario", default="chat")
    p.add_argument("--model", default="")
    p.add_argument("--confirm", default="", help="yes: also on a cluster whose engines are not emulated")
    p.add_argument("--out", type=Path, help="default build/soak/<date>")
    return p


def harmless(target: ChaosTarget) -> list[Fault]:
    """Faults that cost no request before its first byte and leave the watched services running."""
    return [
        fault
        for fault in fault_table(target.containers.parts())
        if fault.costs != "in flight" and not set(fault.services) & set(WATCHED)
    ]


def main(arguments: Sequence[str]) -> int:
    options = parser().parse_args(arguments)
    try:
        target = find_target(options.config, os.environ.get(KEY, ""), options.model, options.confirm == "yes")
        mix = users.mix(options.scenario)
        if not (faults := harmless(target)):
            raise UnfitTarget(
                "a soak requires a pool with two engines: with a single engine every fault costs requests. Add an engine (`make scale`)"
            )
    except (UnfitTarget, GatewayUnusable, ConfigError, ValueError) as error:
        print_error(str(error))
        return 2
    folder = (options.out or ROOT / "build/soak" / time.strftime("%Y%m%d-%H%M%S")).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    run = Soak(target, mix, folder, faults)

    def work() -> None:
        run.find_full()
        run.soak(options.minutes, options.load)

    partial = run_restored(target.containers, work)
    lost = run.write(partial, options.minutes, options.load)
    print_line(f"      {shown(folder)}: soak.md, soak.svg, parts.csv, minutes.csv, failures.jsonl")
    return exit_code(partial, lost)


class Soak:
    """One run. Results stay in memory and are written to `folder` immediately."""

    def __init__(self, target: ChaosTarget, mix: users.Mix, folder: Path, faults: Sequence[Fault]) -> None:
        self.target, self.mix, self.folder, self.faults = target, mix, folder, faults
        self.full_rps = 0.0
        self.rps = 0.0
        self.minutes: list[SoakMinute] = []
        self.samples: list[Sample] = []
        self.gauge = ResourceSampler(target.containers, WATCHED, folder / "parts.csv")
        self.visitor = PageVisitor(target.gateway)

    def find_full(self) -> None:
        count = USERS_PER_ENGINE * len(self.target.engines)
        with step(f"measuring the full throughput: {count} users without pauses") as current:
            users = LoadUsers(dataclasses.replace(self.target.settings, pause=0.0), self.mix)
            users.start(count)
            try:
                time.sleep(FULL_WARM_S)
                began_s = time.time()
                time.sleep(FULL_S)
                ended_s = time.time()
            finally:
                users.stop()
            good = sum(began_s <= sample.ended_s < ended_s and not sample.failed for sample in users.samples)
            self.full_rps = good / (ended_s - began_s)
            current.outcome = f"the full throughput is {self.full_rps:.1f} requests a second"

    def soak(self, minutes: int, load: float) -> None:
        """Runs conversations at random arrival times, with a fault every minute. Each turn is a request."""
        turns = _turns(self.mix)
        self.rps = load * self.full_rps
        users = LoadUsers(self.target.settings, self.mix, samples=self.samples)
        users.start_arrivals(self.rps / turns)
        self.gauge.start()
        self.visitor.start()
        faults = itertools.cycle(self.faults)
        began = time.monotonic()
        try:
            with (self.folder / "minutes.csv").open("w", newline="") as output:
                rows = csv.writer(output)
                rows.writerow([column.name for column in fields(SoakMinute)])
                for number in range(1, minutes + 1):
                    fault = next(faults)
                    with step(f"minute {number} of {minutes}: {fault.name}") as current:
                        minute = self._minute(number, fault, began + number * EVERY_S)
                        current.outcome = f"{number}: {fault.name}: {minute.answered} answered, {minute.failed} failed, {minute.cut} cut"
                    self.minutes.append(minute)
                    rows.writerow(astuple(minute))
                    output.flush()
        finally:
            users.stop()
            self.visitor.stop()
            self.gauge.stop()

    def _minute(self, number: int, fault: Fault, until: float) -> SoakMinute:
        began_s = time.time()
        inject_fault(self.target.containers, fault)
        time.sleep(max(0.0, until - time.monotonic()))
        ended = [sample for sample in list(self.samples) if began_s <= sample.ended_s < time.time()]
        good = [sample for sample in ended if not sample.failed]
        cut = sum(is_cut(sample) for sample in ended)
        p95_s = percentile([sample.total_s for sample in good], 0.95)
        return SoakMinute(number, fault.name, len(good), len(ended) - len(good) - cut, cut, round(p95_s, 3))

    def write(self, partial: str, minutes: int, load: float) -> bool:
        """Writes soak.md and its files. Returns whether a request was lost or a value grows."""
        failed = [sample for sample in self.samples if sample.failed and not is_cut(sample)]
        with (self.folder / "failures.jsonl").open("wb") as file:
            file.writelines(sample.line() for sample in self.samples if sample.failed)
        grown = {
            (service, attribute): measure_growth(self._line(service, attribute), least)
            for service in WATCHED
            for attribute, _, least in GAUGED
        }
        panels = {
            title[0].upper() + title[1:]: {service: self._line(service, attribute) for service in WATCHED}
            for attribute, title, _ in GAUGED
        }
        (self.folder / "soak.svg").write_text(draw_panels(panels))
        (self.folder / "soak.md").write_text(self._text(partial, minutes, load, len(failed), grown))
        growing = ", ".join(
            f"{service}'s {attribute} grows" for (service, attribute), growth in grown.items() if growth.grows
        )
        bad = bool(failed or growing)
        say = print_error if bad else print_ok
        say(f"{len(self.samples)} requests, {len(failed)} lost; {growing or 'nothing grows'}")
        return bad

    def _line(self, service: str, attribute: str) -> list[tuple[float, float]]:
        return [
            (point.at_s, float(getattr(point, attribute))) for point in self.gauge.points if point.service == service
        ]

    def _text(
        self, partial: str, minutes: int, load: float, lost: int, grown: dict[tuple[str, str], ResourceGrowth]
    ) -> str:
        engines = len(self.target.engines)
        cut = sum(is_cut(sample) for sample in self.samples)
        good = [sample.total_s for sample in self.samples if not sample.failed]
        titles = {attribute: title for attribute, title, _ in GAUGED}
        rows = [
            (
                service,
                titles[attribute],
                f"{growth.early:.1f}",
                f"{growth.late:.1f}",
                f"{growth.an_hour:+.1f}",
                "yes" if growth.grows else "no",
            )
            for (service, attribute), growth in grown.items()
        ]
        lines = [
            "# Soak\n",
            f"{'Emulated. ' if self.target.emulated else ''}{minutes} minutes, {engines} engines, "
            f"{self.rps:.1f} requests a second on average ({load:.0%} of the {self.full_rps:.1f} that "
            f"{USERS_PER_ENGINE * engines} users without pauses reach), users arrive at random, one fault a minute.",
            f"Partial: {partial}.\n" if partial else "",
            f"* **{len(self.samples)}** requests, **{lost}** lost (no first byte, or an error), **{cut}** cut after their first byte on an engine with a fault",
            f"* P95 of the complete answer {percentile(good, 0.95):.2f} s; the web page was opened {self.visitor.opened} times and failed {self.visitor.failed} times",
            "* faults: " + ", ".join(fault.name for fault in self.faults) + ", in turn\n",
            "![Memory and open files over time](soak.svg)\n",
            markdown_table(("service", "", "early", "late", "slope per hour", "grows"), rows),
        ]
        if minutes * 60 < MIN_DURATION_S:
            lines.append(
                "The run is shorter than 15 minutes: connection pools and memory still fill up, so growth is not evaluated.\n"
            )
        return "\n".join([*lines, f"{read_host_info('')}.\n"])


def _turns(mix: users.Mix) -> float:
    """Mean number of requests in a conversation."""
    parts = [(len(scenario.conversation(0, 0, 0).turns), share) for scenario, share in mix.parts]
    return sum(turns * share for turns, share in parts) / sum(share for _, share in parts)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
