"""A day in `duration_s`: night, morning, noon, afternoon, evening, night."""

import itertools

from loadtest.shapes.stage import Stage

# Hour -> share of the level, by eye from public traces of office work; between two the level moves evenly.
DAY = ((0, 0.1), (6, 0.1), (9, 0.8), (12, 1.0), (13, 0.7), (16, 1.0), (19, 0.5), (24, 0.1))


def stages(level: float, duration_s: float) -> tuple[Stage, ...]:
    hour_s = duration_s / 24
    pairs = itertools.pairwise(DAY)
    return tuple(Stage((late - early) * hour_s, level * low, level * high) for (early, low), (late, high) in pairs)
