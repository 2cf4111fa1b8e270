"""How many, when: one file each. A shape is data: stages, except for `saturate`, which searches."""

from collections.abc import Callable

from loadtest.shapes import diurnal, soak, spike, steady, steps
from loadtest.shapes.stage import Stage

SATURATE = "saturate"
STAGED: dict[str, Callable[[float, float], tuple[Stage, ...]]] = {
    "steady": steady.stages,
    "steps": steps.stages,
    "spike": spike.stages,
    "soak": soak.stages,
    "diurnal": diurnal.stages,
}
NAMES = (*STAGED, SATURATE)
