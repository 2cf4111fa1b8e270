"""Reads raw results: the values of all repeats of a measurement, as a median with its spread, and the design targets."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.runner import NO_GATEWAY, JobResult, MeasurementKind, read_job_results
from loadtest.statistics import median


@dataclass(frozen=True)
class MeasuredSpread:
    """The median of the repeats, the lowest and the highest value."""

    middle: float
    low: float
    high: float

    def shown(self, digits: int = 1, factor: float = 1.0) -> str:
        middle, low, high = (f"{value * factor:,.{digits}f}" for value in (self.middle, self.low, self.high))
        return middle if low == high else f"{middle} ({low}-{high})"


@dataclass(frozen=True)
class ResultRow:
    """The results of all repeats of one gateway in one measurement, and the reasons of failed repeats."""

    gateway: str
    figures: tuple[dict[str, Any], ...]
    failures: tuple[str, ...]

    def spread(self, *keys: str) -> MeasuredSpread | None:
        """Returns None if there are no values."""
        values = self.each(*keys)
        return MeasuredSpread(median(values), min(values), max(values)) if values else None

    def middle(self, *keys: str) -> float:
        return median(self.each(*keys))

    def each(self, *keys: str) -> list[float]:
        """Returns one value per repeat, at the path `keys`."""
        values = []
        for figures in self.figures:
            value: Any = figures
            for key in keys:
                value = value[key]
            values.append(float(value))
        return values


@dataclass(frozen=True)
class BenchmarkResults:
    """`metadata` is about.json: machine, versions, extent, and what could not be run."""

    metadata: dict[str, Any]
    finished: tuple[JobResult, ...]

    @property
    def repeats(self) -> int:
        return 1 + max((result.job.repeat for result in self.finished), default=0)

    @property
    def first_engines(self) -> int:
        """The number of engines on which all work ran: the number with the most measurements."""
        counts = Counter(result.job.engines for result in self.finished if result.job.kind == "work")
        return counts.most_common(1)[0][0] if counts else 3

    def rows(
        self, kind: MeasurementKind, engines: int | None = None, work: str = "", headers: int = 0
    ) -> list[ResultRow]:
        """Returns one row per gateway, in the order of their first run. A failure counts unless a later try succeeded."""
        figures_by_gateway: dict[str, list[dict[str, Any]]] = {}
        failed: dict[str, dict[int, str]] = {}
        for result in self.finished:
            job = result.job
            if job.kind != kind or job.work != work or job.headers != headers:
                continue
            if engines is not None and job.engines != engines:
                continue
            figures_by_gateway.setdefault(job.gateway, [])
            if result.failed:
                failed.setdefault(job.gateway, {})[job.repeat] = result.failed
            else:
                figures_by_gateway[job.gateway].append(result.found)
                failed.get(job.gateway, {}).pop(job.repeat, None)
        return [
            ResultRow(name, tuple(values), tuple(failed.get(name, {}).values()))
            for name, values in figures_by_gateway.items()
        ]

    def best_share(self, engines: int, work: str) -> float | None:
        """The highest possible fraction of prompt tokens from cache (0 to 1)."""
        for row in self.rows("best", engines, work):
            if row.gateway == NO_GATEWAY and row.figures:
                return float(row.figures[-1]["prefix_share"])
        return None


def load(folder: Path) -> BenchmarkResults:
    return BenchmarkResults(
        json.loads((folder / "about.json").read_text()), tuple(read_job_results(folder / "runs.jsonl"))
    )


OURS = "ManyEyes"
RPS_RATIO, FIRST_RATIO, CACHE_SHARE, ADDED_FIRST_MS, TOGETHER = 1.25, 0.5, 0.98, 2.0, 0.01


@dataclass(frozen=True)
class DesignTarget:
    label: str
    required: str
    measured: str
    met: bool | None


def row_of(rows: Sequence[ResultRow], name: str) -> ResultRow | None:
    return next((row for row in rows if row.gateway == name and row.figures), None)


def best_other(rows: Sequence[ResultRow]) -> ResultRow | None:
    """The other gateway with the highest median of requests a second."""
    others = [row for row in rows if row.figures and row.gateway not in (OURS, NO_GATEWAY)]
    return max(others, key=lambda row: row.middle("rps"), default=None)


def ratios(ours: ResultRow, theirs: ResultRow, key: str) -> MeasuredSpread:
    """The ratio of the medians; low and high are the extremes of the ratios of each repeat."""
    each = [a / b for a, b in zip(ours.each(key), theirs.each(key), strict=False)]
    return MeasuredSpread(ours.middle(key) / theirs.middle(key), min(each), max(each))


def targets(results: BenchmarkResults) -> list[DesignTarget]:
    counts = sorted(
        {result.job.engines for result in results.finished if result.job.kind == "work" and result.job.work == "chat"}
    )
    chats = [target for engines in counts for target in _chat(results, engines)]
    return [*chats, *_cpu(results), *_streaming(results)]


def _not_measured(label: str, required: str) -> DesignTarget:
    return DesignTarget(label, required, "not measured", None)


def _chat(results: BenchmarkResults, engines: int) -> list[DesignTarget]:
    rows = results.rows("work", engines, "chat")
    ours, best_rival = row_of(rows, OURS), best_other(rows)
    scope = f"chat with images, {engines} engines"
    compared = (
        ("rps", f"{scope}: requests a second, compared with the best other gateway", f"≥ {RPS_RATIO} times"),
        ("first_p50_s", f"{scope}: first token p50, compared with the same gateway", f"≤ {FIRST_RATIO} times"),
        ("first_p99_s", f"{scope}: first token p99, compared with the same gateway", f"≤ {FIRST_RATIO} times"),
    )
    if not ours or not best_rival:
        return [_not_measured(label, required) for _, label, required in compared]
    design_targets = []
    for key, label, required in compared:
        ratio = ratios(ours, best_rival, key)
        met = ratio.middle >= RPS_RATIO if key == "rps" else ratio.middle <= FIRST_RATIO
        bound = _bound(rows, best_rival) if key == "first_p50_s" else ""
        design_targets.append(DesignTarget(label, required, f"{ratio.shown(2)} times {best_rival.gateway}{bound}", met))
    label, required = f"{scope}: prompt tokens from cache, relative to the highest possible", f"≥ {CACHE_SHARE}"
    if not (best := results.best_share(engines, "chat")):
        return [*design_targets, _not_measured(label, required)]
    share = ours.middle("prefix_share") / best
    return [*design_targets, DesignTarget(label, required, f"{share:.3f}", share >= CACHE_SHARE)]


def _bound(rows: Sequence[ResultRow], rival: ResultRow) -> str:
    """The ratio that clients reach without a gateway; empty if it was not measured."""
    direct = row_of(rows, NO_GATEWAY)
    return f"; without any gateway {ratios(direct, rival, 'first_p50_s').shown(2)}" if direct else ""


def _cpu(results: BenchmarkResults) -> Iterator[DesignTarget]:
    rows = results.rows("cpu")
    ours = row_of(rows, OURS)
    routers = [row for row in rows if row.figures and row.gateway.startswith("vllm-router")]
    for size in ("3 KB", "200 KB", "2 MB"):
        label = f"CPU for a request of {size}, compared with vllm-router's cheapest policy"
        if not ours or not routers:
            yield _not_measured(label, "not more")
            continue
        our_us, their_us = ours.middle(size, "cpu_us"), min(row.middle(size, "cpu_us") for row in routers)
        yield DesignTarget(label, "not more", f"{our_us:,.0f} against {their_us:,.0f} µs", our_us <= their_us)


def _streaming(results: BenchmarkResults) -> list[DesignTarget]:
    ours = row_of(results.rows("stream"), OURS)
    first = "added time to the first token of a stream", f"≤ {ADDED_FIRST_MS:g} ms"
    together = "chunks that arrive together (within 1 ms)", f"≤ {TOGETHER:.0%} more than direct"
    if not ours:
        return [_not_measured(*first), _not_measured(*together)]
    added = ours.middle("added_first_p50_ms")
    through, direct = ours.middle("through_together"), ours.middle("direct_together")
    return [
        DesignTarget(*first, f"{added:.2f} ms", added <= ADDED_FIRST_MS),
        DesignTarget(*together, f"{through:.1%} against {direct:.1%}", through - direct <= TOGETHER),
    ]
