"""A stage: for so long, from this level to that one. A level is users (closed loop) or requests a second (open loop)."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Stage:
    """The level moves evenly from `start` to `end`."""

    seconds: float
    start: float
    end: float


def length_s(stages: Sequence[Stage]) -> float:
    return sum(stage.seconds for stage in stages)


def level(stages: Sequence[Stage], at_s: float) -> float | None:
    """The level after `at_s` seconds; None when all stages are over."""
    for stage in stages:
        if at_s < stage.seconds:
            return stage.start + (stage.end - stage.start) * at_s / stage.seconds
        at_s -= stage.seconds
    return None
