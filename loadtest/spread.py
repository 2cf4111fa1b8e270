"""A figure with its spread."""

from collections.abc import Sequence
from dataclasses import dataclass

from loadtest.percentiles import median


@dataclass(frozen=True)
class Spread:
    """Values of repeats. At least one."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return median(self.values)

    @property
    def low(self) -> float:
        return min(self.values)

    @property
    def high(self) -> float:
        return max(self.values)

    def overlaps(self, other: "Spread") -> bool:
        return self.low <= other.high and other.low <= self.high


def spread(values: Sequence[float | None]) -> Spread | None:
    """None where there is no value."""
    found = tuple(value for value in values if value is not None)
    return Spread(found) if found else None
