"""Which engines start and which go."""

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


def asked(wanted: int, *engines: ScaledEngine, now_s: float = 1000) -> MovePlan:
    return plan_moves(engines, wanted, now_s, drain_s=300, settle_s=3)


def test_the_first_that_rest_are_started() -> None:
    assert asked(
        3, ScaledEngine("a", UP), ScaledEngine("b", OFF), ScaledEngine("c", OFF), ScaledEngine("d", OFF)
    ).start == ("b", "c")


def test_one_that_is_coming_counts() -> None:
    assert asked(2, ScaledEngine("a", UP), ScaledEngine("b", COMING), ScaledEngine("c", OFF)) == MovePlan()


def test_one_that_drains_is_taken_back_before_another_is_started() -> None:
    found = asked(
        3,
        ScaledEngine("a", UP),
        ScaledEngine("b", OFF),
        ScaledEngine("c", GOING, 5, 999),
        ScaledEngine("d", GOING, 9, 999),
    )
    assert found.take_back == ("d", "c")
    assert found.start == ()


def test_those_with_the_least_to_do_go_and_at_a_tie_the_last() -> None:
    assert asked(2, ScaledEngine("a", UP, 4), ScaledEngine("b", UP, 1), ScaledEngine("c", UP, 9)).hold == ("b",)
    assert asked(2, ScaledEngine("a", UP, 2), ScaledEngine("b", UP, 2), ScaledEngine("c", UP, 2)).hold == ("c",)


def test_the_one_whose_gpu_another_pool_needs_goes_first() -> None:
    assert asked(1, ScaledEngine("a", UP, 9, waited_for=True), ScaledEngine("b", UP, 0)).hold == ("a",)


def test_the_last_one_up_is_never_held_though_another_is_coming() -> None:
    assert asked(1, ScaledEngine("a", UP), ScaledEngine("b", COMING)) == MovePlan()


def test_broken_and_drained_engines_are_replaced() -> None:
    found = asked(2, ScaledEngine("a", AWAY), ScaledEngine("b", UP), ScaledEngine("c", OFF))
    assert found.start == ("c",)


def test_what_cannot_be_had_is_missing() -> None:
    assert asked(3, ScaledEngine("a", UP), ScaledEngine("b", OFF, blocked=True), ScaledEngine("c", AWAY)).missing == 2


def test_one_that_nobody_can_stop_is_not_held() -> None:
    assert asked(1, ScaledEngine("a", UP, 5), ScaledEngine("b", UP, 0, fixed=True)).hold == ("a",)


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
    return EngineFacts(**({"state": state, "serves": state is EngineState.UP, "held": False} | more))  # type: ignore[arg-type]


def test_stages_follow_from_facts() -> None:
    assert lifecycle_stage(facts(EngineState.UP), 60, 15) is UP
    assert lifecycle_stage(facts(EngineState.UP, held=True), 60, 15) is AWAY
    assert lifecycle_stage(facts(EngineState.UP, held=True, draining=True), 60, 15) is GOING
    assert lifecycle_stage(facts(EngineState.DOWN, at_rest=True), 60, 15) is OFF
    assert lifecycle_stage(facts(EngineState.SLEEPING, moving=ActuatorCall.STARTING), 60, 15) is COMING
    assert lifecycle_stage(facts(EngineState.UP, held=True, draining=True, moving=ActuatorCall.RESTING), 60, 15) is OFF


def test_an_engine_that_goes_down_gets_a_stand_in_after_a_moment() -> None:
    assert lifecycle_stage(facts(EngineState.DOWN, out_for_s=14), 60, 15) is COMING
    assert lifecycle_stage(facts(EngineState.DOWN, out_for_s=16), 60, 15) is AWAY


def test_a_started_one_that_does_not_come_up_is_replaced_after_three_times_its_time() -> None:
    assert lifecycle_stage(facts(EngineState.DOWN, started=True, out_for_s=179), 60, 15) is COMING
    assert lifecycle_stage(facts(EngineState.WARMING, started=True, out_for_s=181), 60, 15) is AWAY
