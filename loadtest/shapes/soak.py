"""A slow start, then the same for hours: what leaks shows itself."""

from loadtest.shapes.stage import Stage


def stages(level: float, duration_s: float) -> tuple[Stage, ...]:
    start_s = min(300.0, duration_s / 10)
    return (Stage(start_s, level / 10, level), Stage(duration_s - start_s, level, level))
