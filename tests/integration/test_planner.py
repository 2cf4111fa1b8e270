"""The planner beside emulated engines behind the real nginx: both see the same requests, and none fails.

How near their times are is tests/nightly/test_planner_accuracy.py and docs/benchmarks/planner.md: it needs a quiet machine.
"""

from manyeyes.planner.plan_validation import FOUR_B, ValidationCase, emulated, figures, planned
from manyeyes.planner.workload import PlannedWorkload

CHATS = PlannedWorkload(640, 480, turns=2, think_s=2.0, output_tokens=30, words=20)


def both(warm_s: float, measured_s: float) -> tuple[dict[str, float], dict[str, float]]:
    """What is planned and what is emulated; nobody was refused."""
    held = ValidationCase("small", FOUR_B, 2, 5.0, CHATS, warm_s, measured_s)
    users = emulated(held, seed=3, speed=1.0)
    outcome, said = planned(held, seed=3)
    assert not users.failures
    assert outcome.goodput == 1.0
    return said, figures(held, users.results)


def test_what_is_planned_and_what_is_emulated_are_the_same_requests() -> None:
    said, seen = both(warm_s=1.0, measured_s=4.0)
    assert said["requests"] > 0
    assert said.keys() == seen.keys()
