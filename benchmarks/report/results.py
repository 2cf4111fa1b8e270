"""Raw results read back: the values of all repeats of a measurement, as a median with its spread."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.runner import NO_GATEWAY, JobResult, MeasurementKind, read_job_results
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


OURS = "ManyEyes"
RPS_RATIO, FIRST_RATIO, CACHE_SHARE, ADDED_FIRST_MS, TOGETHER = 1.25, 0.5, 0.98, 2.0, 0.01


@dataclass(frozen=True)
class DesignTarget:
    """`met` is None where it was not measured."""

    what: str
    wanted: str
    found: str
    met: bool | None


def row_of(rows: Sequence[ResultRow], name: str) -> ResultRow | None:
    return next((row for row in rows if row.gateway == name and row.found), None)


def best_other(rows: Sequence[ResultRow]) -> ResultRow | None:
    """Of the other gateways, the one with the highest median of requests a second."""
    others = [row for row in rows if row.found and row.gateway not in (OURS, NO_GATEWAY)]
    return max(others, key=lambda row: _middle(row, "rps"), default=None)


def _middle(row: ResultRow, *keys: str) -> float:
    found = row.spread(*keys)
    return found.middle if found else 0.0


def ratios(ours: ResultRow, other: ResultRow, key: str) -> MeasuredSpread:
    """The ratio of the medians; low and high are those of the repeats side by side."""
    each = [a / b for a, b in zip(ours.each(key), other.each(key), strict=False)]
    return MeasuredSpread(_middle(ours, key) / _middle(other, key), min(each), max(each))


def targets(results: BenchmarkResults) -> list[DesignTarget]:
    found: list[DesignTarget] = []
    counts = sorted({one.job.engines for one in results.finished if one.job.kind == "work" and one.job.work == "chat"})
    for engines in counts:
        found += _chat(results, engines)
    found += _cpu(results)
    return found + _streaming(results)


def _chat(results: BenchmarkResults, engines: int) -> list[DesignTarget]:
    rows = results.rows("work", engines, "chat")
    ours, other = row_of(rows, OURS), best_other(rows)
    where = f"chat with pictures, {engines} engines"
    rps, first = f"{where}: requests a second against the best other", f"{where}: first token p50 against the same one"
    last = f"{where}: first token p99 against the same one"
    if not ours or not other:
        return [
            DesignTarget(what, wanted, "not measured", None)
            for what, wanted in (
                (rps, f"≥ {RPS_RATIO} times"),
                (first, f"≤ {FIRST_RATIO} times"),
                (last, f"≤ {FIRST_RATIO} times"),
            )
        ]
    faster, sooner = ratios(ours, other, "rps"), ratios(ours, other, "first_p50_s")
    surely = ratios(ours, other, "first_p99_s")
    cached = ours.spread("prefix_share")
    best = results.best_share(engines, "chat")
    share = cached.middle / best if cached and best else None
    return [
        DesignTarget(
            rps, f"≥ {RPS_RATIO} times", f"{faster.shown(2)} times {other.gateway}", faster.middle >= RPS_RATIO
        ),
        DesignTarget(
            first,
            f"≤ {FIRST_RATIO} times",
            f"{sooner.shown(2)} times {other.gateway}{_bound(rows, other)}",
            sooner.middle <= FIRST_RATIO,
        ),
        DesignTarget(
            last, f"≤ {FIRST_RATIO} times", f"{surely.shown(2)} times {other.gateway}", surely.middle <= FIRST_RATIO
        ),
        DesignTarget(
            f"{where}: prompt tokens from cache, of the most possible",
            f"≥ {CACHE_SHARE}",
            f"{share:.3f}" if share is not None else "not measured",
            share >= CACHE_SHARE if share is not None else None,
        ),
    ]


def _bound(rows: Sequence[ResultRow], other: ResultRow) -> str:
    """What even no gateway at all would reach; empty where that was not measured."""
    direct = row_of(rows, NO_GATEWAY)
    return f"; without any gateway {ratios(direct, other, 'first_p50_s').shown(2)}" if direct else ""


def _cpu(results: BenchmarkResults) -> list[DesignTarget]:
    rows = results.rows("cpu")
    ours = row_of(rows, OURS)
    routers = [row for row in rows if row.found and row.gateway.startswith("vllm-router")]
    found = []
    for size in ("3 KB", "200 KB", "2 MB"):
        what = f"CPU for a request of {size} against vllm-router's cheapest policy"
        if not ours or not routers:
            found.append(DesignTarget(what, "not more", "not measured", None))
            continue
        cheapest = min(routers, key=_cost(size))
        mine, theirs = _middle(ours, size, "cpu_us"), _middle(cheapest, size, "cpu_us")
        found.append(DesignTarget(what, "not more", f"{mine:,.0f} against {theirs:,.0f} µs", mine <= theirs))
    return found


def _cost(size: str) -> Callable[[ResultRow], float]:
    return lambda row: _middle(row, size, "cpu_us")


def _streaming(results: BenchmarkResults) -> list[DesignTarget]:
    ours = row_of(results.rows("stream"), OURS)
    first, together = (
        "first token of a stream, later than without a gateway",
        "chunks that arrive together (within 1 ms)",
    )
    wanted = f"≤ {ADDED_FIRST_MS:g} ms", f"≤ {TOGETHER:.0%} more than direct"
    if not ours:
        return [
            DesignTarget(first, wanted[0], "not measured", None),
            DesignTarget(together, wanted[1], "not measured", None),
        ]
    added = _middle(ours, "added_first_p50_ms")
    through, direct = _middle(ours, "through_together"), _middle(ours, "direct_together")
    return [
        DesignTarget(first, wanted[0], f"{added:.2f} ms", added <= ADDED_FIRST_MS),
        DesignTarget(together, wanted[1], f"{through:.1%} against {direct:.1%}", through - direct <= TOGETHER),
    ]
