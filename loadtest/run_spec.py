"""Specification of one Locust run, in a file that its processes read. The API key stays in the environment."""

import dataclasses
import itertools
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Literal

import orjson

from loadtest.http_client import parse_target
from loadtest.statistics import STANDARD_OBJECTIVE, LatencyObjective
from loadtest.virtual_user import RequestSettings


@dataclass(frozen=True)
class LoadStage:
    """A part of a run in which the load level changes linearly from `start` to `end`."""

    seconds: float
    start: float
    end: float


def length_s(stages: Sequence[LoadStage]) -> float:
    return sum(stage.seconds for stage in stages)


def level_at(stages: Sequence[LoadStage], at_s: float) -> float | None:
    """Returns the level after `at_s` seconds; None after the last stage."""
    for stage in stages:
        if at_s < stage.seconds:
            return stage.start + (stage.end - stage.start) * at_s / stage.seconds
        at_s -= stage.seconds
    return None


def steady(level: float, duration_s: float) -> tuple[LoadStage, ...]:
    return (LoadStage(duration_s, level, level),)


STEPS = 5


def steps(level: float, duration_s: float) -> tuple[LoadStage, ...]:
    heights = (level * step / STEPS for step in range(1, STEPS + 1))
    return tuple(LoadStage(duration_s / STEPS, height, height) for height in heights)


def spike(level: float, duration_s: float) -> tuple[LoadStage, ...]:
    low = level / 5
    return (
        LoadStage(duration_s * 0.4, low, low),
        LoadStage(duration_s * 0.2, level, level),
        LoadStage(duration_s * 0.4, low, low),
    )


def soak(level: float, duration_s: float) -> tuple[LoadStage, ...]:
    start_s = min(300.0, duration_s / 10)
    return (LoadStage(start_s, level / 10, level), LoadStage(duration_s - start_s, level, level))


# Hour -> fraction of the level, estimated by eye from public traces of office work; linear between two points.
DAY = ((0, 0.1), (6, 0.1), (9, 0.8), (12, 1.0), (13, 0.7), (16, 1.0), (19, 0.5), (24, 0.1))


def diurnal(level: float, duration_s: float) -> tuple[LoadStage, ...]:
    hour_s = duration_s / 24
    pairs = itertools.pairwise(DAY)
    return tuple(LoadStage((late - early) * hour_s, level * low, level * high) for (early, low), (late, high) in pairs)


SATURATE = "saturate"
STAGED: dict[str, Callable[[float, float], tuple[LoadStage, ...]]] = {
    "steady": steady,
    "steps": steps,
    "spike": spike,
    "soak": soak,
    "diurnal": diurnal,
}
NAMES = (*STAGED, SATURATE)


@dataclass(frozen=True)
class SearchPlan:
    """Parameters of the search for the highest load level. Each probe lets the load settle, then measures.

    Times are wall-clock seconds. `precision`: the search ends when the lowest level that missed the objective is at most
    this fraction above the highest level that met it.
    """

    start: float
    settle_s: float = 5.0
    measure_s: float = 20.0
    precision: float = 0.05
    max_probes: int = 9
    growth: float = 1.5


@dataclass
class LevelSearch:
    """State of a search: measure at `level`, then `record` whether it met the objective. `level` is None at the end."""

    plan: SearchPlan
    highest_met: float = 0.0
    lowest_missed: float | None = None
    probes: int = 0

    @property
    def level(self) -> float | None:
        if self.probes >= self.plan.max_probes:
            return None
        met, missed = self.highest_met, self.lowest_missed
        if missed is None:
            return met * self.plan.growth or self.plan.start
        if not met:
            # No level met the objective so far: halve it until one does, or give up at a twentieth of the start.
            return missed / 2 if missed > self.plan.start / 20 else None
        return None if missed / met <= 1 + self.plan.precision else (met + missed) / 2

    def record(self, level: float, is_met: bool) -> None:
        self.probes += 1
        if is_met:
            self.highest_met = max(self.highest_met, level)
        elif self.lowest_missed is None or level < self.lowest_missed:
            self.lowest_missed = level


def arrivals_in(random: Random, rate: float, start_s: float, seconds: float) -> list[float]:
    """Returns sorted arrival times of a Poisson process of `rate` from `start_s`, with exactly rate x seconds arrivals.

    Given their number, arrivals of a Poisson process are independent and uniform. Fixing the number at its expected value
    preserves the bursts, while no probe gets 5 % more work than another by chance. The fractional part of
    rate x seconds is the probability of one more arrival.
    """
    whole, part = divmod(rate * seconds, 1)
    count = int(whole) + (random.random() < part)
    return sorted(start_s + random.random() * seconds for _ in range(count))


_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)([smh])")
_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600}


def parse_duration(text: str) -> float:
    """Parses 90, 90s, 10m or 1h30m and returns seconds. Raises ValueError with a one-sentence message."""
    plain = text.strip()
    if re.fullmatch(r"\d+(\.\d+)?", plain):
        plain += "s"
    parts = _DURATION_PART.findall(plain)
    total = sum(float(number) * _UNIT_SECONDS[unit] for number, unit in parts)
    if not total or "".join(number + unit for number, unit in parts) != plain:
        raise ValueError(f"duration: expected a time above 0 such as 90s, 10m or 2h, got {text!r}")
    return total


ORDER = "MANYEYES_LOADTEST_ORDER"
KEY = "MANYEYES_API_KEY"

Loop = Literal["closed", "open"]


@dataclass(frozen=True)
class RunSpec:
    """One run. Levels are users (`loop` closed) or requests a second (open). All times are wall-clock seconds.

    Either `stages` or `search` is set. `slowdown`: wall-clock seconds per second of the engines' clock, for pauses and
    objectives.
    """

    url: str
    model: str
    scenario: str
    folder: str
    loop: Loop = "closed"
    stages: tuple[LoadStage, ...] = ()
    search: SearchPlan | None = None
    slo: LatencyObjective = STANDARD_OBJECTIVE
    seed: int = 20261121
    processes: int = 1
    slowdown: float = 1.0
    pause: float = 1.0
    timeout_s: float = 120.0
    trusted: str = ""

    def write(self) -> Path:
        file = Path(self.folder) / "order.json"
        file.write_bytes(orjson.dumps(dataclasses.asdict(self), option=orjson.OPT_INDENT_2))
        return file

    def request_settings(self) -> RequestSettings:
        return RequestSettings(
            to=parse_target(self.url),
            model=self.model,
            key=os.environ.get(KEY, ""),
            trusted=self.trusted,
            timeout_s=self.timeout_s,
            slowdown=self.slowdown,
            pause=self.pause,
        )


def read_run_spec(file: Path) -> RunSpec:
    fields = orjson.loads(file.read_bytes())
    fields["stages"] = tuple(LoadStage(**stage) for stage in fields["stages"])
    fields["search"] = SearchPlan(**fields["search"]) if fields["search"] else None
    fields["slo"] = LatencyObjective(**fields["slo"])
    return RunSpec(**fields)
