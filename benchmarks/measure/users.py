"""Starts the users' processes, lets them go at the same moment, and joins what they saw."""

import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace

import orjson

from benchmarks.measure.load import Order, Report
from loadtest.host_info import ROOT

LIMIT_SHARE = 0.85
DEADLINE_S = 900


class Users:
    """Prepared and waiting: `go` does the work."""

    def __init__(self, order: Order, processes: int) -> None:
        self._processes = []
        for part in range(processes):
            process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.measure.load"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                cwd=ROOT,
                start_new_session=True,
            )
            self._processes.append(process)
            self._send(process, orjson.dumps(asdict(replace(order, part=part, parts=processes))))
        try:
            for process in self._processes:
                assert process.stdout
                if process.stdout.readline().strip() != b"ready":
                    raise RuntimeError("a process of users did not start; its error is above")
        except BaseException:
            self.end()
            raise

    @staticmethod
    def _send(process: "subprocess.Popen[bytes]", line: bytes) -> None:
        assert process.stdin
        process.stdin.write(line + b"\n")
        process.stdin.flush()

    def go(self) -> list[Report]:
        try:
            for process in self._processes:
                self._send(process, b"go")
            reports = []
            for process in self._processes:
                said, _ = process.communicate(timeout=DEADLINE_S)
                if process.returncode != 0:
                    raise RuntimeError("a process of users failed; its error is above")
                reports.append(Report(**orjson.loads(said)))
            return reports
        finally:
            self.end()

    def end(self) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.kill()
            process.wait(timeout=10)


def joined(reports: Sequence[Report]) -> Report:
    """One report of several processes' users."""

    def all_of(values: Callable[[Report], list[float]]) -> list[float]:
        return [value for report in reports for value in values(report)]

    errors: dict[str, int] = {}
    for report in reports:
        for why, count in report.errors.items():
            errors[why] = errors.get(why, 0) + count
    return Report(
        started_s=min(report.started_s for report in reports),
        ended_s=max(report.ended_s for report in reports),
        first_s=all_of(lambda r: r.first_s),
        total_s=all_of(lambda r: r.total_s),
        gap_s=all_of(lambda r: r.gap_s),
        errors=errors,
        tokens=sum(report.tokens for report in reports),
        cpu_s=sum(report.cpu_s for report in reports),
    )


def busiest(reports: Sequence[Report]) -> float:
    """The share of a core that the busiest of these processes used; above LIMIT_SHARE the users were the limit."""
    return max(report.cpu_s / max(1e-9, report.ended_s - report.started_s) for report in reports)
