"""The highest level at which something still holds: a bracket first, then halves. Pure; the caller does the measuring."""

from dataclasses import dataclass


@dataclass(frozen=True)
class SearchPlan:
    """Times are wall seconds. A probe lets the load settle, then looks. `precision`: how near to each other the highest level
    that held and the lowest that did not have to come, as a share."""

    start: float
    settle_s: float = 5.0
    measure_s: float = 20.0
    precision: float = 0.05
    most_probes: int = 9
    growth: float = 1.5


@dataclass
class Search:
    """Ask `level`, measure there, `tell` whether it held; `level` is None when the search is over."""

    plan: SearchPlan
    highest_held: float = 0.0
    lowest_missed: float | None = None
    probes: int = 0

    @property
    def level(self) -> float | None:
        if self.probes >= self.plan.most_probes:
            return None
        held, missed = self.highest_held, self.lowest_missed
        if missed is None:
            return held * self.plan.growth or self.plan.start
        if not held:
            # Nothing held so far: down in steps until something does, or until it is plain that nothing will.
            return missed / 2 if missed > self.plan.start / 20 else None
        return None if missed / held <= 1 + self.plan.precision else (held + missed) / 2

    def tell(self, level: float, held: bool) -> None:
        self.probes += 1
        if held:
            self.highest_held = max(self.highest_held, level)
        elif self.lowest_missed is None or level < self.lowest_missed:
            self.lowest_missed = level
