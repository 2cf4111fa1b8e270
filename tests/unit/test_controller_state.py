"""The engine's state machine: what each observation does, as a pure function."""

import pytest

from config.gateway import Controller
from controller.state import Engine, Look, State, look, members, warmed

RULES = Controller(rise=1, fall=2)


def after(*seen: Look, rules: Controller = RULES, engine: Engine | None = None) -> Engine:
    engine = engine or Engine()
    for one in seen:
        engine = look(engine, one, rules).engine
    return engine


def up() -> Engine:
    return warmed(after(Look.HEALTHY)).engine


def test_an_engine_is_up_only_after_its_warm_up_picture() -> None:
    engine = after(Look.HEALTHY)
    assert engine.state is State.WARMING
    assert warmed(engine).engine.state is State.UP


def test_a_failed_warm_up_keeps_it_out_and_says_why() -> None:
    step = warmed(after(Look.HEALTHY), "status 500")
    assert step.engine.state is State.WARMING
    assert step.sentence == "stays out: its warm-up failed: status 500"


def test_without_warm_up_health_is_enough() -> None:
    assert after(Look.HEALTHY, rules=Controller(warm_up=False)).state is State.UP


def test_rise_wants_that_many_good_looks_in_a_row() -> None:
    rules = Controller(rise=3)
    assert after(Look.HEALTHY, Look.HEALTHY, rules=rules).state is State.UNKNOWN
    assert after(Look.HEALTHY, Look.HEALTHY, Look.HEALTHY, rules=rules).state is State.WARMING


@pytest.mark.parametrize("seen", [Look.GONE, Look.DEAD])
def test_an_engine_beyond_doubt_is_taken_out_at_once(seen: Look) -> None:
    assert after(seen, engine=up()).state is State.DOWN


def test_a_silent_engine_is_taken_out_after_fall_looks_only() -> None:
    assert after(Look.SILENT, engine=up()).state is State.UP
    assert after(Look.SILENT, Look.HEALTHY, Look.SILENT, engine=up()).state is State.UP
    assert after(Look.SILENT, Look.SILENT, engine=up()).state is State.DOWN


def test_an_engine_that_comes_back_is_warmed_up_again() -> None:
    assert after(Look.GONE, Look.HEALTHY, engine=up()).state is State.WARMING


def test_every_change_of_state_has_a_sentence_and_nothing_else_has() -> None:
    for start in (Engine(), after(Look.GONE), after(Look.HEALTHY), up(), after(Look.GONE, engine=up())):
        for seen in Look:
            step = look(start, seen, RULES)
            assert bool(step.sentence) == (step.engine.state is not start.state)


def test_a_pool_is_not_answered_for_until_every_engine_was_seen() -> None:
    assert members({"a": up(), "b": Engine()}) is None
    assert members({"a": up(), "b": after(Look.HEALTHY)}) is None  # warming: it may have served all along
    assert members({"a": up(), "b": after(Look.GONE)}) == ["a"]


def test_a_pool_whose_engines_are_all_known_to_be_gone_is_empty() -> None:
    assert members({"a": after(Look.GONE, engine=up()), "b": after(Look.DEAD, engine=up())}) == []


def test_a_pool_is_never_emptied_on_doubt() -> None:
    silent = after(Look.SILENT, Look.SILENT, engine=up())
    assert members({"a": silent, "b": silent}) == ["a", "b"]
    assert members({"a": silent, "b": up()}) == ["b"]
    assert members({"a": silent, "b": after(Look.GONE, engine=up())}) == ["a"]
