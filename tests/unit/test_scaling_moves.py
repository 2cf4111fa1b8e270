"""Which engines start and which go."""

import pytest

from manyeyes.controller.autoscaling.reconcile import (
    ActuatorCall,
    EngineFacts,
    LifecycleStage,
    MovePlan,
    ScaledEngine,
    lifecycle_stage,
    plan_moves,
)
from manyeyes.controller.health.states import EngineState

UP, COMING, GOING, OFF, AWAY = (
    LifecycleStage.SERVING,
    LifecycleStage.STARTING,
    LifecycleStage.DRAINING,
    LifecycleStage.STOPPED,
    LifecycleStage.UNAVAILABLE,
)


def asked(desired: int, *engines: ScaledEngine, now_s: float = 1000) -> MovePlan:
    return plan_moves(engines, desired, now_s, drain_s=300, settle_s=3)


ONE = ScaledEngine
MOVES = {
    "the first that rest are started": (3, [ONE("a", UP), ONE("b", OFF), ONE("c", OFF), ONE("d", OFF)], MovePlan(start=("b", "c"))),
    "one that is coming counts": (2, [ONE("a", UP), ONE("b", COMING), ONE("c", OFF)], MovePlan()),
    "one that drains is taken back before another is started": (
        3,
        [ONE("a", UP), ONE("b", OFF), ONE("c", GOING, 5, 999), ONE("d", GOING, 9, 999)],
        MovePlan(undrain=("d", "c")),
    ),
    "the one with the least to do goes": (2, [ONE("a", UP, 4), ONE("b", UP, 1), ONE("c", UP, 9)], MovePlan(drain=("b",))),
    "at a tie the last one goes": (2, [ONE("a", UP, 2), ONE("b", UP, 2), ONE("c", UP, 2)], MovePlan(drain=("c",))),
    "the one whose GPU another pool needs goes first": (
        1,
        [ONE("a", UP, 9, waited_for=True), ONE("b", UP, 0)],
        MovePlan(drain=("a",)),
    ),
    "the last one up is never held though another is coming": (1, [ONE("a", UP), ONE("b", COMING)], MovePlan()),
    "broken and drained engines are replaced": (2, [ONE("a", AWAY), ONE("b", UP), ONE("c", OFF)], MovePlan(start=("c",))),
    "what cannot be had is missing": (3, [ONE("a", UP), ONE("b", OFF, blocked=True), ONE("c", AWAY)], MovePlan(missing=2)),
    "one that nobody can stop is not held": (1, [ONE("a", UP, 5), ONE("b", UP, 0, fixed=True)], MovePlan(drain=("a",))),
}  # fmt: skip


@pytest.mark.parametrize("case", MOVES)
def test_which_engines_start_and_which_go(case: str) -> None:
    desired, engines, plan = MOVES[case]
    assert asked(desired, *engines) == plan


def test_a_held_one_rests_when_idle_but_not_before_the_gateway_knows() -> None:
    engines = (ScaledEngine("a", UP), ScaledEngine("b", GOING, 0, since_s=998))
    assert asked(1, *engines, now_s=1000).rest == ()
    assert asked(1, *engines, now_s=1001).rest == ("b",)


def test_a_held_one_that_is_busy_or_unknown_rests_when_its_time_is_over() -> None:
    engines = (
        ScaledEngine("a", UP),
        ScaledEngine("b", GOING, 3, since_s=1000),
        ScaledEngine("c", GOING, None, since_s=1000),
    )
    assert asked(1, *engines, now_s=1299).rest == ()
    assert asked(1, *engines, now_s=1300).rest == ("b", "c")


def facts(state: EngineState, **more: object) -> EngineFacts:
    return EngineFacts(**({"state": state, "serves": state is EngineState.UP, "drained": False} | more))  # type: ignore[arg-type]


def test_stages_follow_from_facts() -> None:
    assert lifecycle_stage(facts(EngineState.UP), 60, 15) is UP
    assert lifecycle_stage(facts(EngineState.UP, drained=True), 60, 15) is AWAY
    assert lifecycle_stage(facts(EngineState.UP, drained=True, draining=True), 60, 15) is GOING
    assert lifecycle_stage(facts(EngineState.DOWN, at_rest=True), 60, 15) is OFF
    assert lifecycle_stage(facts(EngineState.SLEEPING, moving=ActuatorCall.STARTING), 60, 15) is COMING
    assert (
        lifecycle_stage(facts(EngineState.UP, drained=True, draining=True, moving=ActuatorCall.RESTING), 60, 15) is OFF
    )


def test_an_engine_that_goes_down_gets_a_stand_in_after_a_moment() -> None:
    assert lifecycle_stage(facts(EngineState.DOWN, out_for_s=14), 60, 15) is COMING
    assert lifecycle_stage(facts(EngineState.DOWN, out_for_s=16), 60, 15) is AWAY


def test_a_started_one_that_does_not_come_up_is_replaced_after_three_times_its_time() -> None:
    assert lifecycle_stage(facts(EngineState.DOWN, started=True, out_for_s=179), 60, 15) is COMING
    assert lifecycle_stage(facts(EngineState.WARMING, started=True, out_for_s=181), 60, 15) is AWAY
