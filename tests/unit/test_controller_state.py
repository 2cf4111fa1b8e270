"""The engine's state machine: what each observation does, as a pure function."""

import itertools
from dataclasses import replace
from typing import Any

import pytest

from manyeyes.config.gateway import Controller
from manyeyes.controller.health import state_machine
from manyeyes.controller.health.state_machine import (
    Canary,
    Doubt,
    Engine,
    Look,
    Observation,
    State,
    members,
    observe,
    wants_canary,
    warmed,
)

RULES = Controller(rise=1, fall=2, hung_after_s=7, stalled_after_s=20)
STEP_S = 1.0


def seen(look: Look = Look.HEALTHY, at_s: float = 0.0, **more: object) -> Observation:
    return Observation(at_s=at_s, look=look, **more)  # type: ignore[arg-type]


class Life:
    """An engine on its own clock: one observation a second."""

    def __init__(self, engine: Engine | None = None, rules: Controller = RULES) -> None:
        self.engine = engine or Engine()
        self.rules = rules
        self.now_s = 1000.0
        self.sentences: list[str] = []

    def sees(self, *looks: Look, times: int = 1, **more: object) -> State:
        for look in looks * times:
            self.now_s += STEP_S
            step = observe(self.engine, seen(look, self.now_s, **more), self.rules)
            assert not (step.engine.state is not self.engine.state and not step.sentence), "a change has a sentence"
            self.engine = step.engine
            if step.sentence:
                self.sentences.append(step.sentence)
        return self.engine.state

    def comes_up(self) -> "Life":
        assert self.sees(Look.HEALTHY) is State.WARMING
        self.engine = warmed(self.engine, self.now_s).engine
        assert self.engine.state is State.UP
        return self

    def wants_canary(self, look: Look = Look.HEALTHY, **more: object) -> bool:
        return wants_canary(self.engine, seen(look, self.now_s, **more), self.rules)


def up() -> Life:
    return Life().comes_up()


# Coming up


def test_an_engine_is_up_only_after_its_warm_up_picture() -> None:
    life = Life()
    assert life.sees(Look.HEALTHY) is State.WARMING
    assert warmed(life.engine, life.now_s).engine.state is State.UP


def test_a_failed_warm_up_keeps_it_out_and_says_why() -> None:
    life = Life()
    life.sees(Look.HEALTHY)
    step = warmed(life.engine, life.now_s, "status 500")
    assert step.engine.state is State.WARMING
    assert step.sentence == "stays out: its warm-up failed: status 500"


def test_without_warm_up_health_is_enough() -> None:
    assert Life(rules=Controller(warm_up=False)).sees(Look.HEALTHY) is State.UP


def test_rise_wants_that_many_good_looks_in_a_row() -> None:
    life = Life(rules=Controller(rise=3))
    assert life.sees(Look.HEALTHY, times=2) is State.UNKNOWN
    assert life.sees(Look.HEALTHY) is State.WARMING


def test_what_is_no_engine_is_never_admitted() -> None:
    life = Life()
    assert life.sees(Look.ODD, why="it answers /health with status 404", times=50) is State.STARTING
    assert life.sentences == ["is not up yet: it answers /health with status 404"]


def test_every_change_of_state_has_a_sentence_and_nothing_else_has() -> None:
    starts = (Life(), up())
    for start, looks in itertools.product(starts, itertools.product(Look, repeat=4)):
        engine = start.engine
        for number, look in enumerate(looks):
            step = observe(engine, seen(look, 2000 + 5.0 * number, why="odd" if look is Look.ODD else ""), RULES)
            assert bool(step.sentence) == (step.engine.state is not engine.state)
            engine = step.engine


# Beyond doubt


@pytest.mark.parametrize("look", [Look.GONE, Look.DEAD])
def test_an_engine_beyond_doubt_is_taken_out_at_once(look: Look) -> None:
    assert up().sees(look) is State.DOWN


def test_an_engine_that_comes_back_is_warmed_up_again() -> None:
    assert up().sees(Look.GONE, Look.HEALTHY) is State.WARMING


# Busy is not hung


def test_a_silent_engine_without_progress_is_suspect_then_out_after_hung_after_s() -> None:
    life = up()
    assert life.sees(Look.SILENT) is State.UP
    assert life.sees(Look.SILENT, times=5) is State.SUSPECT
    assert life.sees(Look.SILENT) is State.DOWN
    assert life.engine.on_doubt
    assert life.sentences[-1] == "is down: no answer to /health and no progress for 7 s"


def test_a_silent_engine_that_makes_progress_is_never_taken_out() -> None:
    life = up()
    for _ in range(600):
        assert life.sees(Look.SILENT, progressed=True, busy=True, idle=False, waited_s=30) in (State.UP, State.SUSPECT)
    assert members({"a": life.engine, "b": up().engine}) == ["a", "b"]
    assert not life.wants_canary(Look.SILENT)


def test_a_silent_engine_that_lately_succeeded_is_not_taken_out() -> None:
    life = up()
    for _ in range(600):
        life.sees(Look.SILENT, succeeded_at_s=life.now_s - 3)
    assert life.engine.serves
    assert life.sees(Look.SILENT, succeeded_at_s=life.now_s - 30, times=10) is State.DOWN


def test_an_engine_that_answers_later_and_later_gets_twice_as_long_as_it_took() -> None:
    life = up()
    for waited in (1, 3, 6, 11, 20, 30):
        for second in range(waited):
            assert life.sees(Look.SILENT, waited_s=second) is not State.DOWN
        life.sees(Look.HEALTHY, waited_s=waited)
    assert life.engine.state is State.UP
    assert life.sees(Look.SILENT, times=59) is State.SUSPECT
    assert life.sees(Look.SILENT) is State.DOWN


def test_an_engine_on_cpu_is_waited_for_longer() -> None:
    life = up()
    assert life.sees(Look.SILENT, patience=3.0, times=20) is State.SUSPECT
    assert life.sees(Look.SILENT, patience=3.0) is State.DOWN


def test_one_answer_ends_the_suspicion() -> None:
    life = up()
    life.sees(Look.SILENT, times=4)
    assert life.sees(Look.HEALTHY) is State.UP
    assert life.sentences[-1] == "is up again: it works as it should"


# Hung is not healthy


def stalled() -> Life:
    life = up()
    still: Any = {"progressed": False, "busy": True, "idle": False}
    assert life.sees(Look.HEALTHY, times=19, **still) is State.UP
    assert life.sees(Look.HEALTHY, **still) is State.SUSPECT
    return life


def test_an_engine_whose_work_stands_still_behind_a_healthy_face_is_suspect_asked_and_out() -> None:
    life = stalled()
    assert life.sentences[-1] == "is suspect: it answers /health, but its work stands still since 20 s"
    assert life.wants_canary(idle=False)
    assert life.sees(Look.HEALTHY, progressed=False, busy=True, canary=Canary.SILENT) is State.DOWN
    assert life.sentences[-1] == "is down: it did not answer about a picture in time"
    assert life.engine.on_doubt


def test_a_picture_answered_ends_that_suspicion() -> None:
    life = stalled()
    assert life.sees(Look.HEALTHY, progressed=True, busy=True, canary=Canary.PASSED) is State.UP
    assert life.sees(Look.HEALTHY, progressed=False, busy=True, times=10) is State.UP


def test_an_engine_with_nothing_to_do_stands_still_rightly() -> None:
    assert up().sees(Look.HEALTHY, progressed=False, times=1000) is State.UP


def test_an_idle_engine_is_asked_about_a_picture_now_and_then() -> None:
    life = up()
    assert not life.wants_canary()
    life.sees(Look.HEALTHY, progressed=False, times=299)
    assert not life.wants_canary()
    life.sees(Look.HEALTHY)
    assert life.wants_canary()
    assert not life.wants_canary(idle=False)
    life.sees(Look.HEALTHY, canary=Canary.PASSED)
    assert not life.wants_canary()


def test_users_who_are_served_are_proof_enough() -> None:
    life = up()
    life.sees(Look.HEALTHY, times=299)
    life.sees(Look.HEALTHY, succeeded_at_s=life.now_s)
    assert not life.wants_canary()


def test_two_failed_pictures_take_an_idle_engine_out_and_one_does_not() -> None:
    life = up()
    assert life.sees(Look.HEALTHY, canary=Canary.FAILED, canary_said="status 500") is State.SUSPECT
    assert life.wants_canary()
    assert life.sees(Look.HEALTHY) is State.SUSPECT
    assert life.sees(Look.HEALTHY, canary=Canary.FAILED, canary_said="status 500") is State.DOWN
    assert life.sentences[-1] == "is down: it could not answer about a picture: status 500"
    assert not life.engine.on_doubt
    life = up()
    life.sees(Look.HEALTHY, canary=Canary.FAILED)
    assert life.sees(Look.HEALTHY, canary=Canary.PASSED) is State.UP


def test_an_engine_too_full_for_a_picture_is_not_blamed() -> None:
    life = up()
    assert life.sees(Look.HEALTHY, canary=Canary.BUSY, times=20) is State.UP


def test_requests_that_fail_in_a_row_make_an_engine_suspect_and_a_picture_decides() -> None:
    life = up()
    assert life.sees(Look.HEALTHY, failures=1) is State.UP
    assert life.sees(Look.HEALTHY, failures=2) is State.SUSPECT
    assert life.wants_canary(failures=2)
    assert life.sees(Look.HEALTHY, failures=2) is State.SUSPECT
    assert life.sees(Look.HEALTHY, failures=9, canary=Canary.PASSED) is State.UP
    assert life.sees(Look.HEALTHY, failures=2) is State.SUSPECT
    life.sees(Look.HEALTHY, failures=3, canary=Canary.FAILED)
    assert life.sees(Look.HEALTHY, failures=4, canary=Canary.FAILED) is State.DOWN


def test_an_engine_that_answers_oddly_is_suspect_serves_on_and_is_asked() -> None:
    life = up()
    odd = "it sends more than 4096 KB at /metrics"
    assert life.sees(Look.ODD, why=odd) is State.UP
    assert life.sees(Look.ODD, why=odd, times=8) is State.SUSPECT
    assert life.sentences[-1] == f"is suspect: {odd}"
    assert life.wants_canary(Look.ODD)
    assert life.sees(Look.ODD, why=odd, canary=Canary.PASSED) is State.SUSPECT
    assert not life.wants_canary(Look.ODD)
    assert life.sees(Look.HEALTHY) is State.UP


# Sleep


def test_an_engine_asleep_gets_nothing_and_is_warmed_up_when_it_wakes() -> None:
    life = up()
    assert life.sees(Look.HEALTHY, asleep=True) is State.SLEEPING
    assert members({"a": life.engine, "b": up().engine}) == ["b"]
    assert life.sees(Look.HEALTHY, times=100) is State.SLEEPING
    assert life.sees(Look.HEALTHY, asleep=False) is State.WARMING
    assert life.sentences[-1] == "is awake again and gets its warm-up picture"


def test_an_engine_that_dies_asleep_is_down_and_has_not_flapped() -> None:
    life = up()
    life.sees(Look.HEALTHY, asleep=True)
    assert life.sees(Look.GONE) is State.DOWN
    assert life.engine.downs == ()


# Flapping


def flaps(life: Life, times: int, **more: Any) -> None:
    for _ in range(times):
        assert life.sees(Look.GONE) is State.DOWN
        while life.sees(Look.HEALTHY, **more) is not State.WARMING:
            pass
        life.engine = warmed(life.engine, life.now_s).engine


def test_an_engine_that_flaps_has_to_stay_good_for_longer_each_time() -> None:
    life = up()
    flaps(life, 2)
    waited = []
    for _ in range(3):
        life.sees(Look.GONE)
        began_s = life.now_s
        while life.sees(Look.HEALTHY) is not State.WARMING:
            pass
        waited.append(life.now_s - began_s - STEP_S)
        life.engine = warmed(life.engine, life.now_s).engine
    assert waited == [10, 20, 40]
    assert "stays out: it went down 5 times in 10 minutes, so it has to stay good for 40 s" in life.sentences


def test_flapping_is_forgiven_while_nobody_else_serves_and_when_somebody_wanted_it() -> None:
    life = up()
    flaps(life, 6, others_serve=False)
    life.sees(Look.GONE)
    assert life.sees(Look.HEALTHY, others_serve=False) is State.WARMING
    held = Life(state_machine.hold(up().engine, "restarted by ops").engine)
    flaps(held, 6)
    assert held.engine.downs == ()


def test_flapping_is_forgotten_after_its_window() -> None:
    life = up()
    flaps(life, 4)
    life.now_s += RULES.flap_window_s
    life.sees(Look.GONE)
    assert life.sees(Look.HEALTHY) is State.WARMING


# Pools


def test_a_pool_is_not_answered_for_until_every_engine_was_seen() -> None:
    warming = Life()
    warming.sees(Look.HEALTHY)
    gone = Life()
    gone.sees(Look.GONE)
    assert members({"a": up().engine, "b": Engine()}) is None
    assert members({"a": up().engine, "b": warming.engine}) is None  # it may have served all along
    assert members({"a": up().engine, "b": gone.engine}) == ["a"]


def test_a_pool_whose_engines_are_all_known_to_be_gone_is_empty() -> None:
    gone, dead = up(), up()
    gone.sees(Look.GONE)
    dead.sees(Look.DEAD)
    assert members({"a": gone.engine, "b": dead.engine}) == []


def test_a_pool_is_never_emptied_on_doubt() -> None:
    silent, gone = up(), up()
    silent.sees(Look.SILENT, times=20)
    gone.sees(Look.GONE)
    assert silent.engine.state is State.DOWN
    assert members({"a": silent.engine, "b": silent.engine}) == ["a", "b"]
    assert members({"a": silent.engine, "b": up().engine}) == ["b"]
    assert members({"a": silent.engine, "b": gone.engine}) == ["a"]
    silent.sees(Look.GONE)
    assert members({"a": silent.engine, "b": gone.engine}) == []


def test_what_is_remembered_serves_until_the_first_look_says_otherwise() -> None:
    kept = {one: state_machine.remembered(one, 1000.0) for one in State}
    assert members({one.value: engine for one, engine in kept.items()}) == ["up", "suspect"]
    assert Life(kept[State.UP]).sees(Look.GONE) is State.DOWN
    assert Life(kept[State.UP]).sees(Look.HEALTHY) is State.UP
    assert Life(kept[State.WARMING]).sees(Look.HEALTHY) is State.WARMING


def test_a_held_engine_is_shown_as_draining_while_it_serves() -> None:
    held = state_machine.hold(up().engine, "ops").engine
    assert (held.shown, held.held_for) == (State.DRAINING, "ops")
    suspect = replace(held, state=State.SUSPECT, doubt=Doubt.SILENT)
    assert suspect.shown is State.DRAINING
    assert Life(held).sees(Look.GONE) is State.DOWN
    away = state_machine.observe(held, seen(Look.GONE), RULES)
    assert away.sentence == "went away while it was held back: nothing listens there"
    assert state_machine.release(held, "ops").engine.held_for == ""
