"""A simulated day under the default policy: the objective is held, half of the engine-hours saved, and nothing swings."""

import pytest

from manyeyes.config.scaling import Scaling, Target
from manyeyes.controller.autoscaling.policy import with_default_target
from manyeyes.simulator import profile
from tests.autoscaling_simulation.day import AVERAGE, Outcome, Setting, SimulatedEngine, Traffic, play
from tests.placed import placed

SEEDS = (0, 1, 2, 3, 4)
RTX_4090 = """
pools: [{name: big, model: Qwen/Qwen3-VL-8B-Instruct-FP8, scaling: {actuator: ACTUATOR}}]
engines: [{name: gpu-0, pool: big, gpus: [0]}]
"""


def default(actuator: str) -> Scaling:
    """What `scaling: {}` comes to for this model on this GPU."""
    cluster = placed(RTX_4090.replace("ACTUATOR", actuator))
    scaling = with_default_target(cluster.pools[0], cluster.engines)
    assert scaling is not None
    return scaling


def promised(day: Outcome, scaling: Scaling) -> None:
    assert day.held >= 0.99, day
    assert day.hours_share <= 0.60, day
    assert day.most_changes_an_hour <= 12, day.changes
    assert day.swings(scaling.scale_down.window_s) == 0, day.changes


@pytest.mark.parametrize("seed", SEEDS)
def test_the_default_policy_holds_the_objective_with_much_fewer_engine_hours(seed: int) -> None:
    scaling = default("containers")
    promised(play(Setting(scaling), seed), scaling)


def test_engines_that_sleep_hold_it_too() -> None:
    scaling = default("sleep")
    promised(play(Setting(scaling), seed=1), scaling)


def test_a_policy_that_lets_engines_fill_up_does_not_hold_it() -> None:
    """The objective is one that can be missed."""
    assert play(Setting(Scaling(target=Target(in_flight=30))), seed=0).held < 0.95


def test_a_steady_load_between_two_sizes_changes_something_once_in_hours() -> None:
    """Two engines are slightly too few and three slightly too many."""
    steady = Traffic(night_per_s=4.0, peak_per_s=4.0, noise=0, spikes=0)
    day = play(Setting(default("containers"), traffic=steady), seed=0)
    settled = [change for change in day.changes if change.at_s > 2 * 3600]
    assert {change.after for change in settled} <= {2, 3}, day.changes
    assert len(settled) <= 12, day.changes


def test_the_simulated_engine_serves_as_fast_as_its_profile_says() -> None:
    """One after the other, and sixteen at once."""
    times = profile.load_profile("rtx4090-qwen3-vl-8b-fp8")
    batch_s = [AVERAGE.batch_s(times, running) for running in range(49)]
    alone = SimulatedEngine("gpu-0", batch_s)
    alone.take(0, 1)
    assert alone.next_end_s() == pytest.approx(batch_s[1])
    full = SimulatedEngine("gpu-1", batch_s)
    for _ in range(16):
        full.take(0, 1)
    assert full.next_end_s() == pytest.approx(batch_s[16])
    assert 2 < 16 / batch_s[16] < 3  # requests per second
