"""The engine's state machine: what each observation does, as a pure function."""

import itertools
from dataclasses import replace
from typing import Any

import pytest

from manyeyes.config.gateway import Controller
from manyeyes.controller.health import state_machine
from manyeyes.controller.health.state_machine import eligible_members, finish_warm_up, needs_canary, observe
from manyeyes.controller.health.states import (
    CanaryResult,
    EngineHealth,
    EngineState,
    Observation,
    ProbeResult,
    SuspectReason,
)

RULES = Controller(rise=1, fall=2, hung_after_s=7, stalled_after_s=20)
STEP_S = 1.0


def seen(look: ProbeResult = ProbeResult.HEALTHY, at_s: float = 0.0, **more: object) -> Observation:
    return Observation(at_s=at_s, result=look, **more)  # type: ignore[arg-type]


class Life:
    """An engine on its own clock: one observation a second."""

    def __init__(self, engine: EngineHealth | None = None, rules: Controller = RULES) -> None:
        self.engine = engine or EngineHealth()
        self.rules = rules
        self.now_s = 1000.0
        self.sentences: list[str] = []

    def sees(self, *looks: ProbeResult, times: int = 1, **more: object) -> EngineState:
        for look in looks * times:
            self.now_s += STEP_S
            step = observe(self.engine, seen(look, self.now_s, **more), self.rules)
            assert not (step.engine.state is not self.engine.state and not step.sentence), "a change has a sentence"
            self.engine = step.engine
            if step.sentence:
                self.sentences.append(step.sentence)
        return self.engine.state

    def comes_up(self) -> "Life":
        assert self.sees(ProbeResult.HEALTHY) is EngineState.WARMING
        self.engine = finish_warm_up(self.engine, self.now_s).engine
        assert self.engine.state is EngineState.UP
        return self

    def wants_canary(self, look: ProbeResult = ProbeResult.HEALTHY, **more: object) -> bool:
        return needs_canary(self.engine, seen(look, self.now_s, **more), self.rules)


def up() -> Life:
    return Life().comes_up()


# Coming up


def test_an_engine_is_up_only_after_its_warm_up_picture() -> None:
    life = Life()
    assert life.sees(ProbeResult.HEALTHY) is EngineState.WARMING
    assert finish_warm_up(life.engine, life.now_s).engine.state is EngineState.UP


def test_a_failed_warm_up_keeps_it_out_and_says_why() -> None:
    life = Life()
    life.sees(ProbeResult.HEALTHY)
    step = finish_warm_up(life.engine, life.now_s, "status 500")
    assert step.engine.state is EngineState.WARMING
    assert step.sentence == "stays out: its warm-up failed: status 500"


def test_without_warm_up_health_is_enough() -> None:
    assert Life(rules=Controller(warm_up=False)).sees(ProbeResult.HEALTHY) is EngineState.UP


def test_rise_wants_that_many_good_looks_in_a_row() -> None:
    life = Life(rules=Controller(rise=3))
    assert life.sees(ProbeResult.HEALTHY, times=2) is EngineState.UNKNOWN
    assert life.sees(ProbeResult.HEALTHY) is EngineState.WARMING


def test_what_is_no_engine_is_never_admitted() -> None:
    life = Life()
    assert life.sees(ProbeResult.ODD, why="it answers /health with status 404", times=50) is EngineState.STARTING
    assert life.sentences == ["is not up yet: it answers /health with status 404"]


def test_every_change_of_state_has_a_sentence_and_nothing_else_has() -> None:
    starts = (Life(), up())
    for start, looks in itertools.product(starts, itertools.product(ProbeResult, repeat=4)):
        engine = start.engine
        for number, look in enumerate(looks):
            step = observe(engine, seen(look, 2000 + 5.0 * number, why="odd" if look is ProbeResult.ODD else ""), RULES)
            assert bool(step.sentence) == (step.engine.state is not engine.state)
            engine = step.engine


# Beyond doubt


@pytest.mark.parametrize("look", [ProbeResult.GONE, ProbeResult.DEAD])
def test_an_engine_beyond_doubt_is_taken_out_at_once(look: ProbeResult) -> None:
    assert up().sees(look) is EngineState.DOWN


def test_an_engine_that_comes_back_is_warmed_up_again() -> None:
    assert up().sees(ProbeResult.GONE, ProbeResult.HEALTHY) is EngineState.WARMING


# Busy is not hung


def test_a_silent_engine_without_progress_is_suspect_then_out_after_hung_after_s() -> None:
    life = up()
    assert life.sees(ProbeResult.SILENT) is EngineState.UP
    assert life.sees(ProbeResult.SILENT, times=5) is EngineState.SUSPECT
    assert life.sees(ProbeResult.SILENT) is EngineState.DOWN
    assert life.engine.timed_out
    assert life.sentences[-1] == "is down: no answer to /health and no progress for 7 s"


def test_a_silent_engine_that_makes_progress_is_never_taken_out() -> None:
    life = up()
    for _ in range(600):
        assert life.sees(ProbeResult.SILENT, progressed=True, busy=True, idle=False, waited_s=30) in (
            EngineState.UP,
            EngineState.SUSPECT,
        )
    assert eligible_members({"a": life.engine, "b": up().engine}) == ["a", "b"]
    assert not life.wants_canary(ProbeResult.SILENT)


def test_a_silent_engine_that_lately_succeeded_is_not_taken_out() -> None:
    life = up()
    for _ in range(600):
        life.sees(ProbeResult.SILENT, succeeded_at_s=life.now_s - 3)
    assert life.engine.serves
    assert life.sees(ProbeResult.SILENT, succeeded_at_s=life.now_s - 30, times=10) is EngineState.DOWN


def test_an_engine_that_answers_later_and_later_gets_twice_as_long_as_it_took() -> None:
    life = up()
    for waited in (1, 3, 6, 11, 20, 30):
        for second in range(waited):
            assert life.sees(ProbeResult.SILENT, waited_s=second) is not EngineState.DOWN
        life.sees(ProbeResult.HEALTHY, waited_s=waited)
    assert life.engine.state is EngineState.UP
    assert life.sees(ProbeResult.SILENT, times=59) is EngineState.SUSPECT
    assert life.sees(ProbeResult.SILENT) is EngineState.DOWN


def test_an_engine_on_cpu_is_waited_for_longer() -> None:
    life = up()
    assert life.sees(ProbeResult.SILENT, patience=3.0, times=20) is EngineState.SUSPECT
    assert life.sees(ProbeResult.SILENT, patience=3.0) is EngineState.DOWN


def test_one_answer_ends_the_suspicion() -> None:
    life = up()
    life.sees(ProbeResult.SILENT, times=4)
    assert life.sees(ProbeResult.HEALTHY) is EngineState.UP
    assert life.sentences[-1] == "is up again: its health checks pass"


# Hung is not healthy


def stalled() -> Life:
    life = up()
    still: Any = {"progressed": False, "busy": True, "idle": False}
    assert life.sees(ProbeResult.HEALTHY, times=19, **still) is EngineState.UP
    assert life.sees(ProbeResult.HEALTHY, **still) is EngineState.SUSPECT
    return life


def test_an_engine_whose_work_stands_still_behind_a_healthy_face_is_suspect_asked_and_out() -> None:
    life = stalled()
    assert life.sentences[-1] == "is suspect: it answers /health, but has made no progress for 20 s"
    assert life.wants_canary(idle=False)
    assert life.sees(ProbeResult.HEALTHY, progressed=False, busy=True, canary=CanaryResult.SILENT) is EngineState.DOWN
    assert life.sentences[-1] == "is down: it did not answer a canary request in time"
    assert life.engine.timed_out


def test_a_picture_answered_ends_that_suspicion() -> None:
    life = stalled()
    assert life.sees(ProbeResult.HEALTHY, progressed=True, busy=True, canary=CanaryResult.PASSED) is EngineState.UP
    assert life.sees(ProbeResult.HEALTHY, progressed=False, busy=True, times=10) is EngineState.UP


def test_an_engine_with_nothing_to_do_stands_still_rightly() -> None:
    assert up().sees(ProbeResult.HEALTHY, progressed=False, times=1000) is EngineState.UP


def test_an_idle_engine_is_asked_about_a_picture_now_and_then() -> None:
    life = up()
    assert not life.wants_canary()
    life.sees(ProbeResult.HEALTHY, progressed=False, times=299)
    assert not life.wants_canary()
    life.sees(ProbeResult.HEALTHY)
    assert life.wants_canary()
    assert not life.wants_canary(idle=False)
    life.sees(ProbeResult.HEALTHY, canary=CanaryResult.PASSED)
    assert not life.wants_canary()


def test_users_who_are_served_are_proof_enough() -> None:
    life = up()
    life.sees(ProbeResult.HEALTHY, times=299)
    life.sees(ProbeResult.HEALTHY, succeeded_at_s=life.now_s)
    assert not life.wants_canary()


def test_two_failed_pictures_take_an_idle_engine_out_and_one_does_not() -> None:
    life = up()
    assert (
        life.sees(ProbeResult.HEALTHY, canary=CanaryResult.FAILED, canary_problem="status 500") is EngineState.SUSPECT
    )
    assert life.wants_canary()
    assert life.sees(ProbeResult.HEALTHY) is EngineState.SUSPECT
    assert life.sees(ProbeResult.HEALTHY, canary=CanaryResult.FAILED, canary_problem="status 500") is EngineState.DOWN
    assert life.sentences[-1] == "is down: a canary request failed: status 500"
    assert not life.engine.timed_out
    life = up()
    life.sees(ProbeResult.HEALTHY, canary=CanaryResult.FAILED)
    assert life.sees(ProbeResult.HEALTHY, canary=CanaryResult.PASSED) is EngineState.UP


def test_an_engine_too_full_for_a_picture_is_not_blamed() -> None:
    life = up()
    assert life.sees(ProbeResult.HEALTHY, canary=CanaryResult.BUSY, times=20) is EngineState.UP


def test_requests_that_fail_in_a_row_make_an_engine_suspect_and_a_picture_decides() -> None:
    life = up()
    assert life.sees(ProbeResult.HEALTHY, failures=1) is EngineState.UP
    assert life.sees(ProbeResult.HEALTHY, failures=2) is EngineState.SUSPECT
    assert life.wants_canary(failures=2)
    assert life.sees(ProbeResult.HEALTHY, failures=2) is EngineState.SUSPECT
    assert life.sees(ProbeResult.HEALTHY, failures=9, canary=CanaryResult.PASSED) is EngineState.UP
    assert life.sees(ProbeResult.HEALTHY, failures=2) is EngineState.SUSPECT
    life.sees(ProbeResult.HEALTHY, failures=3, canary=CanaryResult.FAILED)
    assert life.sees(ProbeResult.HEALTHY, failures=4, canary=CanaryResult.FAILED) is EngineState.DOWN


def test_requests_that_the_gateway_found_at_fault_are_verified_by_a_picture() -> None:
    life = up()
    assert life.sees(ProbeResult.HEALTHY, unverified=True, times=9) is EngineState.UP
    assert life.wants_canary(unverified=True, idle=False)
    assert life.sees(ProbeResult.HEALTHY, canary=CanaryResult.PASSED) is EngineState.UP
    assert not life.wants_canary(idle=False)
    failed: dict[str, Any] = {"unverified": True, "canary": CanaryResult.FAILED}
    assert life.sees(ProbeResult.HEALTHY, **failed) is EngineState.SUSPECT
    assert life.sees(ProbeResult.HEALTHY, **failed) is EngineState.DOWN


def test_an_engine_that_answers_oddly_is_suspect_serves_on_and_is_asked() -> None:
    life = up()
    odd = "it sends more than 4096 KB at /metrics"
    assert life.sees(ProbeResult.ODD, why=odd) is EngineState.UP
    assert life.sees(ProbeResult.ODD, why=odd, times=8) is EngineState.SUSPECT
    assert life.sentences[-1] == f"is suspect: {odd}"
    assert life.wants_canary(ProbeResult.ODD)
    assert life.sees(ProbeResult.ODD, why=odd, canary=CanaryResult.PASSED) is EngineState.SUSPECT
    assert not life.wants_canary(ProbeResult.ODD)
    assert life.sees(ProbeResult.HEALTHY) is EngineState.UP


# Sleep


def test_an_engine_asleep_gets_nothing_and_is_warmed_up_when_it_wakes() -> None:
    life = up()
    assert life.sees(ProbeResult.HEALTHY, asleep=True) is EngineState.SLEEPING
    assert eligible_members({"a": life.engine, "b": up().engine}) == ["b"]
    assert life.sees(ProbeResult.HEALTHY, times=100) is EngineState.SLEEPING
    assert life.sees(ProbeResult.HEALTHY, asleep=False) is EngineState.WARMING
    assert life.sentences[-1] == "is awake again and gets its warm-up request"


def test_an_engine_that_dies_asleep_is_down_and_has_not_flapped() -> None:
    life = up()
    life.sees(ProbeResult.HEALTHY, asleep=True)
    assert life.sees(ProbeResult.GONE) is EngineState.DOWN
    assert life.engine.downs == ()


# Flapping


def flaps(life: Life, times: int, **more: Any) -> None:
    for _ in range(times):
        assert life.sees(ProbeResult.GONE) is EngineState.DOWN
        while life.sees(ProbeResult.HEALTHY, **more) is not EngineState.WARMING:
            pass
        life.engine = finish_warm_up(life.engine, life.now_s).engine


def test_an_engine_that_flaps_has_to_stay_good_for_longer_each_time() -> None:
    life = up()
    flaps(life, 2)
    waited = []
    for _ in range(3):
        life.sees(ProbeResult.GONE)
        began_s = life.now_s
        while life.sees(ProbeResult.HEALTHY) is not EngineState.WARMING:
            pass
        waited.append(life.now_s - began_s - STEP_S)
        life.engine = finish_warm_up(life.engine, life.now_s).engine
    assert waited == [10, 20, 40]
    assert "stays out: it went down 5 times in 10 minutes, so it must be healthy for 40 s" in life.sentences


def test_flapping_is_forgiven_while_nobody_else_serves_and_when_somebody_wanted_it() -> None:
    life = up()
    flaps(life, 6, others_serve=False)
    life.sees(ProbeResult.GONE)
    assert life.sees(ProbeResult.HEALTHY, others_serve=False) is EngineState.WARMING
    held = Life(state_machine.drain(up().engine, "restarted by ops").engine)
    flaps(held, 6)
    assert held.engine.downs == ()


def test_flapping_is_forgotten_after_its_window() -> None:
    life = up()
    flaps(life, 4)
    life.now_s += RULES.flap_window_s
    life.sees(ProbeResult.GONE)
    assert life.sees(ProbeResult.HEALTHY) is EngineState.WARMING


# Pools


def test_a_pool_is_not_answered_for_until_every_engine_was_seen() -> None:
    warming = Life()
    warming.sees(ProbeResult.HEALTHY)
    gone = Life()
    gone.sees(ProbeResult.GONE)
    assert eligible_members({"a": up().engine, "b": EngineHealth()}) is None
    assert eligible_members({"a": up().engine, "b": warming.engine}) is None  # it may have served all along
    assert eligible_members({"a": up().engine, "b": gone.engine}) == ["a"]


def test_a_pool_whose_engines_are_all_known_to_be_gone_is_empty() -> None:
    gone, dead = up(), up()
    gone.sees(ProbeResult.GONE)
    dead.sees(ProbeResult.DEAD)
    assert eligible_members({"a": gone.engine, "b": dead.engine}) == []


def test_a_pool_is_never_emptied_on_doubt() -> None:
    silent, gone = up(), up()
    silent.sees(ProbeResult.SILENT, times=20)
    gone.sees(ProbeResult.GONE)
    assert silent.engine.state is EngineState.DOWN
    assert eligible_members({"a": silent.engine, "b": silent.engine}) == ["a", "b"]
    assert eligible_members({"a": silent.engine, "b": up().engine}) == ["b"]
    assert eligible_members({"a": silent.engine, "b": gone.engine}) == ["a"]
    silent.sees(ProbeResult.GONE)
    assert eligible_members({"a": silent.engine, "b": gone.engine}) == []


def test_what_is_remembered_serves_until_the_first_look_says_otherwise() -> None:
    kept = {one: state_machine.restore(one, 1000.0) for one in EngineState}
    assert eligible_members({one.value: engine for one, engine in kept.items()}) == ["up", "suspect"]
    assert Life(kept[EngineState.UP]).sees(ProbeResult.GONE) is EngineState.DOWN
    assert Life(kept[EngineState.UP]).sees(ProbeResult.HEALTHY) is EngineState.UP
    assert Life(kept[EngineState.WARMING]).sees(ProbeResult.HEALTHY) is EngineState.WARMING


def test_a_held_engine_is_shown_as_draining_while_it_serves() -> None:
    held = state_machine.drain(up().engine, "ops").engine
    assert (held.shown, held.drain_reason) == (EngineState.DRAINING, "ops")
    suspect = replace(held, state=EngineState.SUSPECT, suspect_reason=SuspectReason.SILENT)
    assert suspect.shown is EngineState.DRAINING
    assert Life(held).sees(ProbeResult.GONE) is EngineState.DOWN
    away = state_machine.observe(held, seen(ProbeResult.GONE), RULES)
    assert away.sentence == "stopped while it was drained: nothing listens there"
    assert state_machine.undrain(held, "ops").engine.drain_reason == ""
