"""What is measured on each number of engines, how long, and in which order; and each phase's result, a line of runs.jsonl."""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import orjson

from loadtest.sample import LatencyObjective
from loadtest.statistics import RunFigures

Phase = Literal["full", "same", "limit", "video"]
PHASES: tuple[Phase, ...] = ("full", "same", "limit", "video")


@dataclass(frozen=True)
class PhaseSettings:
    """Seconds are on the engines' clock. The same for every number of engines, and kept beside what was measured.

    `full`: so many people for each engine, who keep all of them busy: how much they can do.
    `same`: as many people as one engine had in `full`, whatever the number of engines: what the same people feel.
    `limit`: a search by the rate of arrivals: the most under the objective.
    `video`: the same people again, some of them with videos.
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
"""Shows that all of it works; its figures mean nothing."""


@dataclass(frozen=True)
class ClusterVisit:
    """One number of engines, brought up once and measured in all phases."""

    count: int
    repeat: int

    def __str__(self) -> str:
        return f"{self.count} engine{'s' if self.count > 1 else ''}, repeat {self.repeat + 1}"


def visits(counts: Sequence[int], repeats: int) -> Iterator[ClusterVisit]:
    """Interleaved: each repeat goes once through all counts, beginning with another one each time, so that a machine that
    becomes slower or faster does so for all of them."""
    for repeat in range(repeats):
        at = repeat % len(counts)
        for count in (*counts[at:], *counts[:at]):
            yield ClusterVisit(count, repeat)


def phases(count: int, wanted: Sequence[Phase]) -> list[Phase]:
    """One engine's `same` is its `full`."""
    return [phase for phase in PHASES if phase in wanted and not (phase == "same" and count == 1)]


@dataclass(frozen=True)
class PhaseResult:
    """`used`: share of the time that each engine's GPU worked, by name. `died`: engines that ended by themselves meanwhile.
    `limit_rps`: what a search found. `trouble`: why this is partial; such a line does not count and is measured again."""

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


def append_result(file: Path, measured: PhaseResult) -> None:
    """Raises OSError when the disk is full."""
    with file.open("ab") as lines:
        lines.write(orjson.dumps(dataclasses.asdict(measured)) + b"\n")


def read_results(file: Path) -> Iterator[PhaseResult]:
    """All whole lines, in order."""
    if not file.exists():
        return
    for line in file.read_bytes().splitlines():
        try:
            fields = orjson.loads(line)
            visit, figures = ClusterVisit(**fields.pop("visit")), RunFigures(**fields.pop("figures"))
            yield PhaseResult(visit, figures=figures, **fields)
        except (orjson.JSONDecodeError, TypeError, KeyError):
            continue


def read_good_results(file: Path) -> list[PhaseResult]:
    """Those that count, the last one of each where one was measured again."""
    found = {(one.visit, one.phase): one for one in read_results(file) if not one.trouble}
    return list(found.values())
