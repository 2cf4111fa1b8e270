"""Does a figure grow over a long run? Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from loadtest.statistics import median

WARM_SHARE = 0.1
"""The first tenth is left out: caches and pools fill."""
THIRD = 0.3
GROWS_SHARE = 0.10
MOST_POINTS = 300
LEAST_S = 900.0
"""In a shorter run nothing has settled: pools of connections and of memory still fill, so it is no evidence of growth."""


@dataclass(frozen=True)
class Growth:
    """Medians of an early and of the last third, and the usual slope between any two points (Theil-Sen), for an hour."""

    early: float
    late: float
    an_hour: float
    grows: bool


def growth(points: Sequence[tuple[float, float]], least: float) -> Growth:
    """`points`: (seconds, value). It grows when it gained more than a tenth, and more than `least`, between early and late; never in less than 15 minutes."""
    if not points:
        return Growth(0, 0, 0, False)
    start_s, end_s = points[0][0], points[-1][0]
    length_s = max(1e-9, end_s - start_s)
    warm = [(at_s, value) for at_s, value in points if at_s >= start_s + WARM_SHARE * length_s] or list(points)
    early = [value for at_s, value in warm if at_s <= start_s + (WARM_SHARE + THIRD) * length_s] or [warm[0][1]]
    late = [value for at_s, value in warm if at_s >= end_s - THIRD * length_s] or [warm[-1][1]]
    thinned = warm[:: max(1, len(warm) // MOST_POINTS)]
    slopes = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in combinations(thinned, 2) if b[0] > a[0]]
    first, last = median(early), median(late)
    grows = length_s >= LEAST_S and last - first > max(least, GROWS_SHARE * first)
    return Growth(first, last, 3600 * median(slopes), grows)
