"""A simulated day under the default policy. Five seeds, sleeping engines and steady loads: tests/nightly/test_simulated_days.py."""

from tests.autoscaling_simulation.day import Setting, play
from tests.nightly.test_simulated_days import default, promised


def test_a_day_under_the_default_policy_holds_the_objective() -> None:
    scaling = default("containers")
    promised(play(Setting(scaling), seed=0), scaling)
