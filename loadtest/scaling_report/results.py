"""Reads runs.jsonl and summarizes it: every figure with its spread for each number of engines, and missed thresholds. Pure."""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from loadtest.result_files import read_lines
from loadtest.statistics import LatencyObjective, RunFigures, Spread, spread

Phase = Literal["full", "same", "limit", "video"]
PHASES: tuple[Phase, ...] = ("full", "same", "limit", "video")


@dataclass(frozen=True)
class PhaseSettings:
    """Settings of the phases, in seconds of the engines' clock. Equal for every number of engines and stored with the results.

    `full`: `users_per_engine` users for each engine, so that all engines are busy. Measures throughput.
    `same`: as many users as one engine had in `full`, for any number of engines. Measures latency for the same users.
    `limit`: a search for the highest arrival rate within the objective.
    `video`: `video_users` users, some of them with videos.
    """

    scenario: str = "image"
    users_per_engine: int = 32
    full_settle_s: float = 6.0
    full_s: float = 20.0
    same_settle_s: float = 4.0
    same_s: float = 12.0
    probe_settle_s: float = 3.0
    probe_s: float = 10.0
    probe_precision: float = 0.05
    most_probes: int = 6
    video_scenario: str = "image:1,video:1"
    video_users: int = 24
    video_settle_s: float = 4.0
    video_s: float = 40.0
    slo: LatencyObjective = LatencyObjective(first_s=2.0, total_s=5.0, share=0.95)  # noqa: RUF009, frozen
    seed: int = 20261121
    warm_up_per_engine: int = 4


QUICK = PhaseSettings(
    users_per_engine=16,
    full_settle_s=2.0,
    full_s=4.0,
    same_settle_s=1.0,
    same_s=3.0,
    probe_settle_s=1.0,
    probe_s=3.0,
    probe_precision=0.2,
    most_probes=3,
    video_users=8,
    video_settle_s=1.0,
    video_s=4.0,
)
"""A short run that shows that everything works. Its figures have no meaning."""


@dataclass(frozen=True)
class ClusterVisit:
    """One start of the cluster with a number of engines, measured in all phases."""

    count: int
    repeat: int

    def __str__(self) -> str:
        return f"{self.count} engine{'s' if self.count > 1 else ''}, repeat {self.repeat + 1}"


def visits(counts: Sequence[int], repeats: int) -> Iterator[ClusterVisit]:
    """Yields the visits, interleaved: each repeat measures every count once and starts with a different count.

    A machine that becomes slower or faster therefore affects all counts.
    """
    for repeat in range(repeats):
        at = repeat % len(counts)
        for count in (*counts[at:], *counts[:at]):
            yield ClusterVisit(count, repeat)


def phases(count: int, requested: Sequence[Phase]) -> list[Phase]:
    """The requested phases of a count. With one engine `same` is left out, because it equals `full`."""
    return [phase for phase in PHASES if phase in requested and not (phase == "same" and count == 1)]


@dataclass(frozen=True)
class PhaseResult:
    """One measured phase. `used`: fraction of the time that each engine's GPU was busy, by name.

    `died`: number of engines that crashed during the phase. `limit_rps`: result of the search. `trouble`: why the result is
    partial; a partial result does not count and is measured again.
    """

    visit: ClusterVisit
    phase: Phase
    figures: RunFigures
    seconds: float = 0.0
    used: dict[str, float] = field(default_factory=dict)
    died: int = 0
    limit_rps: float | None = None
    probes: list[dict[str, Any]] = field(default_factory=list)
    cpu_p95: float = 0.0
    lag_p95_s: float = 0.0
    generator_was_limit: bool = False
    machine_share: float = 0.0
    trouble: str = ""


def read_results(file: Path) -> Iterator[PhaseResult]:
    for fields in read_lines(file):
        with contextlib.suppress(TypeError, KeyError):
            visit, figures = ClusterVisit(**fields.pop("visit")), RunFigures(**fields.pop("figures"))
            yield PhaseResult(visit, figures=figures, **fields)


def read_good_results(file: Path) -> list[PhaseResult]:
    """Reads the complete results; of a phase that was measured again, the last one."""
    latest = {(result.visit, result.phase): result for result in read_results(file) if not result.trouble}
    return list(latest.values())


FIGURES: dict[str, tuple[Phase, Callable[[PhaseResult], float | None]]] = {
    "full_rps": ("full", lambda result: result.figures.rps),
    "limit_rps": ("limit", lambda result: result.limit_rps),
    "goodput_rps": ("full", lambda result: result.figures.goodput_rps),
    "tokens_per_s": ("full", lambda result: result.figures.tokens_per_s),
    "same_p50_s": ("same", lambda result: result.figures.total_p50_s),
    "same_p95_s": ("same", lambda result: result.figures.total_p95_s),
    "same_p99_s": ("same", lambda result: result.figures.total_p99_s),
    "first_p50_s": ("same", lambda result: result.figures.first_p50_s),
    "first_p95_s": ("same", lambda result: result.figures.first_p95_s),
    "token_p50_s": ("same", lambda result: result.figures.token_p50_s),
    "used": ("full", lambda result: sum(result.used.values()) / len(result.used) if result.used else None),
    "balance": ("full", lambda result: result.figures.balance or None),
    "video_success": ("video", lambda result: result.figures.video_success),
    "oom_per_hour": ("video", lambda result: 3600 * result.died / result.seconds if result.seconds else None),
}
"""For each figure its phase and how to read it. `efficiency` and `limit_efficiency`, relative to one engine, are computed separately."""


@dataclass(frozen=True)
class EngineCountResult:
    """Results of one number of engines. `result[name]`: the spread of a figure; None if it was not measured."""

    count: int
    repeats: int
    figures: dict[str, Spread]
    share: dict[str, float]
    errors: int
    requests: int
    probes: tuple[tuple[float, float, bool], ...]  # rate, p95 of the answers, whether the objective was met

    def __getitem__(self, name: str) -> Spread | None:
        return self.figures.get(name)


@dataclass(frozen=True)
class ScalingResults:
    counts: dict[int, EngineCountResult]
    generator_was_limit: tuple[str, ...]
    cpu_p95: float
    machine_share: float


def summarize(measured: Sequence[PhaseResult]) -> ScalingResults:
    counts = sorted({result.visit.count for result in measured})
    return ScalingResults(
        counts={count: _at(count, measured) for count in counts},
        generator_was_limit=tuple(
            f"{result.visit}, {result.phase}" for result in measured if result.generator_was_limit
        ),
        cpu_p95=max((result.cpu_p95 for result in measured), default=0.0),
        machine_share=max((result.machine_share for result in measured), default=0.0),
    )


def _at(count: int, measured: Sequence[PhaseResult]) -> EngineCountResult:
    here = [result for result in measured if result.visit.count == count]
    by_phase = {phase: _of(here, phase) for phase in PHASES}
    counted = [*by_phase["full"], *by_phase["same"]]
    if count == 1:
        by_phase["same"] = by_phase["full"]  # with one engine both phases have the same users
    spreads = {name: spread([value(result) for result in by_phase[phase]]) for name, (phase, value) in FIGURES.items()}
    spreads["efficiency"] = _efficiency(measured, count, "full", lambda result: result.figures.rps)
    spreads["limit_efficiency"] = _efficiency(measured, count, "limit", lambda result: result.limit_rps or 0.0)
    answered: Counter[str] = Counter()
    for result in by_phase["full"]:
        answered.update(result.figures.per_engine)
    return EngineCountResult(
        count=count,
        repeats=len({result.visit.repeat for result in here}),
        figures={name: figure for name, figure in spreads.items() if figure},
        share={name: number / max(1, answered.total()) for name, number in sorted(answered.items())},
        errors=sum(result.figures.failed for result in counted),
        requests=sum(result.figures.answered + result.figures.failed for result in counted),
        probes=tuple(
            (float(probe["level"]), float(probe["total_p95_s"]), bool(probe["held"]))
            for result in by_phase["limit"]
            for probe in result.probes
        ),
    )


def _of(measured: Sequence[PhaseResult], phase: Phase) -> list[PhaseResult]:
    return [result for result in measured if result.phase == phase]


def _efficiency(
    measured: Sequence[PhaseResult], count: int, phase: Phase, value: Callable[[PhaseResult], float]
) -> Spread | None:
    """T(n)/(n T(1)), each repeat relative to one engine in the same repeat, so that slow changes of the machine cancel."""
    single = {m.visit.repeat: value(m) for m in _of(measured, phase) if m.visit.count == 1}
    several = {m.visit.repeat: value(m) for m in _of(measured, phase) if m.visit.count == count}
    return spread([several[r] / (count * single[r]) for r in sorted(several) if single.get(r)])


@dataclass(frozen=True)
class Thresholds:
    min_efficiency: float | None = None
    max_p95_s: float | None = None


def missed_thresholds(results: ScalingResults, thresholds: Thresholds) -> list[str]:
    """Returns one sentence for each threshold that was missed or not measured."""
    sentences = []
    min_efficiency, max_p95_s = thresholds.min_efficiency, thresholds.max_p95_s
    if min_efficiency is not None:
        efficiencies = {count: value.median for count, at in results.counts.items() if (value := at["efficiency"])}
        if not any(count > 1 for count in efficiencies):
            sentences.append(f"efficiency was not measured, expected at least {min_efficiency:g}")
        sentences += [
            f"efficiency at {count} engines is {value:.3f}, expected at least {min_efficiency:g}"
            for count, value in efficiencies.items()
            if value < min_efficiency
        ]
    if max_p95_s is not None:
        last = results.counts[max(results.counts)]
        if (p95 := last["same_p95_s"]) is None:
            sentences.append(f"p95 was not measured, expected at most {max_p95_s:g} s")
        elif p95.median > max_p95_s:
            sentences.append(f"p95 on {last.count} engines is {p95.median:.2f} s, expected at most {max_p95_s:g} s")
    for at in results.counts.values():
        if (limit := at["limit_rps"]) and limit.median == 0:
            sentences.append(f"{at.count} engine(s) did not meet the objective at any rate that was tried")
    return sentences
