"""A fifth of the level, the whole level at once for a fifth of the time, and a fifth again."""

from loadtest.shapes.stage import Stage


def stages(level: float, duration_s: float) -> tuple[Stage, ...]:
    low = level / 5
    return (Stage(duration_s * 0.4, low, low), Stage(duration_s * 0.2, level, level), Stage(duration_s * 0.4, low, low))
