"""Five steps up to the level, each as long."""

from loadtest.shapes.stage import Stage

STEPS = 5


def stages(level: float, duration_s: float) -> tuple[Stage, ...]:
    heights = (level * step / STEPS for step in range(1, STEPS + 1))
    return tuple(Stage(duration_s / STEPS, height, height) for height in heights)
