"""Raw results read back: the values of all repeats of a measurement, as a median with its spread."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.plan import NO_GATEWAY, JobResult, MeasurementKind, read_job_results
from loadtest.statistics import median


@dataclass(frozen=True)
class MeasuredSpread:
    """A median of repeats, the lowest and the highest."""

    middle: float
    low: float
    high: float

    def shown(self, digits: int = 1, factor: float = 1.0) -> str:
        middle, low, high = (f"{value * factor:,.{digits}f}" for value in (self.middle, self.low, self.high))
        return middle if low == high else f"{middle} ({low}-{high})"


def measured_spread(values: Sequence[float]) -> MeasuredSpread | None:
    """None of no values."""
    return MeasuredSpread(median(values), min(values), max(values)) if values else None


@dataclass(frozen=True)
class ResultRow:
    """What all repeats of one gateway found at one measurement, and how often it failed altogether."""

    gateway: str
    found: tuple[dict[str, Any], ...]
    failures: tuple[str, ...]

    def spread(self, *keys: str) -> MeasuredSpread | None:
        return measured_spread(self.each(*keys))

    def each(self, *keys: str) -> list[float]:
        """One value per repeat, `keys` leading to it."""
        values = []
        for one in self.found:
            value: Any = one
            for key in keys:
                value = value[key]
            values.append(float(value))
        return values


@dataclass(frozen=True)
class BenchmarkResults:
    """`about` is about.json: machine, versions, extent, and what could not be run."""

    about: dict[str, Any]
    finished: tuple[JobResult, ...]

    @property
    def repeats(self) -> int:
        return 1 + max((one.job.repeat for one in self.finished), default=0)

    @property
    def first_engines(self) -> int:
        """The number of engines that all work ran on: the one with the most measurements."""
        counts: dict[int, int] = {}
        for one in self.finished:
            if one.job.kind == "work":
                counts[one.job.engines] = counts.get(one.job.engines, 0) + 1
        return max(counts, key=lambda number: counts[number], default=3)

    def rows(
        self, kind: MeasurementKind, engines: int | None = None, work: str = "", headers: int = 0
    ) -> list[ResultRow]:
        """One per gateway, in the order in which they ran first. A failure counts while no later try of it went well."""
        found: dict[str, list[dict[str, Any]]] = {}
        failed: dict[str, dict[int, str]] = {}
        for one in self.finished:
            job = one.job
            if job.kind != kind or job.work != work or job.headers != headers:
                continue
            if engines is not None and job.engines != engines:
                continue
            found.setdefault(job.gateway, [])
            if one.failed:
                failed.setdefault(job.gateway, {})[job.repeat] = one.failed
            else:
                found[job.gateway].append(one.found)
                failed.get(job.gateway, {}).pop(job.repeat, None)
        return [ResultRow(name, tuple(values), tuple(failed.get(name, {}).values())) for name, values in found.items()]

    def best_share(self, engines: int, work: str) -> float | None:
        """The most prompt tokens that could come from cache, 0 to 1."""
        for row in self.rows("best", engines, work):
            if row.gateway == NO_GATEWAY and row.found:
                return float(row.found[-1]["prefix_share"])
        return None


def load(folder: Path) -> BenchmarkResults:
    return BenchmarkResults(
        json.loads((folder / "about.json").read_text()), tuple(read_job_results(folder / "runs.jsonl"))
    )
