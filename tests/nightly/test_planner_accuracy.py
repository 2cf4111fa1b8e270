"""How near the planner comes to emulated engines behind the real nginx. Narrower bounds, from many runs: docs/planner.md."""

import pytest

from manyeyes.planner.plan_validation import FOUR_B, ValidationCase, emulated, figures, planned
from manyeyes.planner.workload import PlannedWorkload


def test_two_engines_behave_as_planned() -> None:
    chats = PlannedWorkload(640, 480, turns=2, think_s=2.0, output_tokens=30, words=20)
    held = ValidationCase("small", FOUR_B, 2, 5.0, chats, warm_s=4.0, measured_s=14.0)
    users = emulated(held, seed=3, speed=1.0)
    outcome, said = planned(held, seed=3)
    seen = figures(held, users.told)
    assert not users.failures
    assert outcome.goodput == 1.0
    assert said["requests"] == pytest.approx(seen["requests"], rel=0.1)
    assert said["requests/s"] == pytest.approx(seen["requests/s"], rel=0.25)
    assert said["P50"] == pytest.approx(seen["P50"], rel=0.4)
    assert said["first token P50"] < 1.2 * seen["first token P50"]
