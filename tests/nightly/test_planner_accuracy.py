"""How near the planner comes to emulated engines behind the real nginx. Narrower bounds, from many runs: docs/benchmarks/planner.md."""

import pytest

from tests.integration.test_planner import both


def test_two_engines_behave_as_planned() -> None:
    said, seen = both(warm_s=4.0, measured_s=14.0)
    assert said["requests"] == pytest.approx(seen["requests"], rel=0.1)
    assert said["requests/s"] == pytest.approx(seen["requests/s"], rel=0.25)
    assert said["P50"] == pytest.approx(seen["P50"], rel=0.4)
    assert said["first token P50"] < 1.2 * seen["first token P50"]
