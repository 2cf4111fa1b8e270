"""The planner beside emulated engines behind the real nginx: both see the same requests, and none fails.

How near their times are is tests/nightly/test_planner_accuracy.py and docs/planner.md: it needs a quiet machine.
"""

from manyeyes.planner.plan_validation import FOUR_B, ValidationCase, emulated, figures, planned
from manyeyes.planner.workload import PlannedWorkload


def test_what_is_planned_and_what_is_emulated_are_the_same_requests() -> None:
    chats = PlannedWorkload(640, 480, turns=2, think_s=2.0, output_tokens=30, words=20)
    held = ValidationCase("small", FOUR_B, 2, 5.0, chats, warm_s=1.0, measured_s=4.0)
    users = emulated(held, seed=3, speed=1.0)
    outcome, said = planned(held, seed=3)
    seen = figures(held, users.told)
    assert not users.failures
    assert outcome.goodput == 1.0
    assert said["requests"] > 0
    assert said.keys() == seen.keys()
