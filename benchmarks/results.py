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
    found: tuple[dict[str, Any], ...]
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
        """The number of engines on which all work ran: the number with the most measurements."""
        counts = Counter(one.job.engines for one in self.finished if one.job.kind == "work")
        return counts.most_common(1)[0][0] if counts else 3

    def rows(
        self, kind: MeasurementKind, engines: int | None = None, work: str = "", headers: int = 0
    ) -> list[ResultRow]:
        """Returns one row per gateway, in the order of their first run. A failure counts unless a later try succeeded."""
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
        """The highest possible fraction of prompt tokens from cache (0 to 1)."""
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
    what: str
    wanted: str
    found: str
    met: bool | None


def row_of(rows: Sequence[ResultRow], name: str) -> ResultRow | None:
    return next((row for row in rows if row.gateway == name and row.found), None)


def best_other(rows: Sequence[ResultRow]) -> ResultRow | None:
    """The other gateway with the highest median of requests a second."""
    others = [row for row in rows if row.found and row.gateway not in (OURS, NO_GATEWAY)]
    return max(others, key=lambda row: row.middle("rps"), default=None)


def ratios(ours: ResultRow, other: ResultRow, key: str) -> MeasuredSpread:
    """The ratio of the medians; low and high are the extremes of the ratios of each repeat."""
    each = [a / b for a, b in zip(ours.each(key), other.each(key), strict=False)]
    return MeasuredSpread(ours.middle(key) / other.middle(key), min(each), max(each))


def targets(results: BenchmarkResults) -> list[DesignTarget]:
    counts = sorted({one.job.engines for one in results.finished if one.job.kind == "work" and one.job.work == "chat"})
    chats = [target for engines in counts for target in _chat(results, engines)]
    return [*chats, *_cpu(results), *_streaming(results)]


def _not_measured(what: str, wanted: str) -> DesignTarget:
    return DesignTarget(what, wanted, "not measured", None)


def _chat(results: BenchmarkResults, engines: int) -> list[DesignTarget]:
    rows = results.rows("work", engines, "chat")
    ours, other = row_of(rows, OURS), best_other(rows)
    where = f"chat with images, {engines} engines"
    compared = (
        ("rps", f"{where}: requests a second, compared with the best other gateway", f"≥ {RPS_RATIO} times"),
        ("first_p50_s", f"{where}: first token p50, compared with the same gateway", f"≤ {FIRST_RATIO} times"),
        ("first_p99_s", f"{where}: first token p99, compared with the same gateway", f"≤ {FIRST_RATIO} times"),
    )
    if not ours or not other:
        return [_not_measured(what, wanted) for _, what, wanted in compared]
    found = []
    for key, what, wanted in compared:
        ratio = ratios(ours, other, key)
        met = ratio.middle >= RPS_RATIO if key == "rps" else ratio.middle <= FIRST_RATIO
        bound = _bound(rows, other) if key == "first_p50_s" else ""
        found.append(DesignTarget(what, wanted, f"{ratio.shown(2)} times {other.gateway}{bound}", met))
    what, wanted = f"{where}: prompt tokens from cache, relative to the highest possible", f"≥ {CACHE_SHARE}"
    if not (best := results.best_share(engines, "chat")):
        return [*found, _not_measured(what, wanted)]
    share = ours.middle("prefix_share") / best
    return [*found, DesignTarget(what, wanted, f"{share:.3f}", share >= CACHE_SHARE)]


def _bound(rows: Sequence[ResultRow], other: ResultRow) -> str:
    """The ratio that clients reach without a gateway; empty if it was not measured."""
    direct = row_of(rows, NO_GATEWAY)
    return f"; without any gateway {ratios(direct, other, 'first_p50_s').shown(2)}" if direct else ""


def _cpu(results: BenchmarkResults) -> Iterator[DesignTarget]:
    rows = results.rows("cpu")
    ours = row_of(rows, OURS)
    routers = [row for row in rows if row.found and row.gateway.startswith("vllm-router")]
    for size in ("3 KB", "200 KB", "2 MB"):
        what = f"CPU for a request of {size}, compared with vllm-router's cheapest policy"
        if not ours or not routers:
            yield _not_measured(what, "not more")
            continue
        mine, theirs = ours.middle(size, "cpu_us"), min(row.middle(size, "cpu_us") for row in routers)
        yield DesignTarget(what, "not more", f"{mine:,.0f} against {theirs:,.0f} µs", mine <= theirs)


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
