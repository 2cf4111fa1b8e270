"""The same all the time."""

from loadtest.shapes.stage import Stage


def stages(level: float, duration_s: float) -> tuple[Stage, ...]:
    return (Stage(duration_s, level, level),)
