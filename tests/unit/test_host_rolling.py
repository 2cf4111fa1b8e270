"""One engine's turn in a rolling restart, look by look."""

from dataclasses import replace
from typing import Any

import pytest

from manyeyes.cli.engine_restart import Action, Observation, Phase, Restart, RestartTimes, next_step

RULES = RestartTimes(leave_s=5, finish_s=60, stop_s=20, start_s=600)


def seen(now_s: float, state: str, in_flight: int | None = 0, **more: Any) -> Observation:
    return Observation(now_s, state, in_flight, **({"others": 2, "is_only": False} | more))


def played(*looks: Observation, turn: Restart | None = None) -> tuple[Restart, list[Action]]:
    """The turn after all looks, and everything that was done."""
    turn, done = turn or Restart(), []
    for look in looks:
        turn, act = next_step(turn, look, RULES)
        done += [act] if act else []
    return turn, done


def test_an_engine_is_held_left_alone_stopped_started_warmed_and_let_in() -> None:
    turn, done = played(
        seen(0, "up", 4),
        seen(1, "draining", 4),
        seen(5, "draining", 1),
        seen(6, "draining", 0),
        seen(7, "down", None),
        seen(8, "starting", None),
        seen(30, "warming", 1),
        seen(31, "draining", 0),
        seen(32, "up", 0),
        seen(37, "up", 3),
    )
    assert (turn.phase, turn.left_behind) == (Phase.DONE, 0)
    assert done == [Action.HOLD, Action.STOP, Action.START, Action.RELEASE]


def test_nothing_in_flight_ends_the_wait_only_after_nginx_surely_knows() -> None:
    turn, done = played(seen(0, "up"), seen(4, "draining", 0))
    assert (turn.phase, done) == (Phase.LEAVING, [Action.HOLD])
    turn, done = played(seen(5, "draining", 0), turn=turn)
    assert (turn.phase, done) == (Phase.STOPPING, [Action.STOP])


@pytest.mark.parametrize("in_flight", [3, None])
def test_after_the_deadline_it_is_stopped_with_what_it_has_and_the_number_is_kept(in_flight: int | None) -> None:
    turn, done = played(
        seen(0, "up"), seen(6, "draining", in_flight), seen(64, "draining", in_flight), seen(67, "draining", in_flight)
    )
    assert (turn.phase, turn.left_behind, done) == (Phase.STOPPING, in_flight, [Action.HOLD, Action.STOP])


def test_the_last_engine_that_serves_is_not_touched() -> None:
    turn, done = played(seen(0, "up", others=0), seen(10, "up", others=0), seen(21, "up", others=0))
    assert (turn.phase, done) == (Phase.FAILED, [])
    assert "no other engine of its pool is up" in turn.why
    turn, done = played(seen(0, "up", others=0), seen(10, "up", others=1))
    assert done == [Action.HOLD]


def test_an_engine_alone_in_its_pool_and_one_that_serves_nobody_are_restarted_all_the_same() -> None:
    assert played(seen(0, "up", others=0, is_only=True))[1] == [Action.HOLD]
    assert played(seen(0, "down", others=0), seen(1, "down", others=0))[1] == [Action.HOLD, Action.STOP]


def test_it_is_not_started_before_the_controller_saw_it_gone() -> None:
    """A restart too quick to be seen would be let in without a warm-up."""
    stopping = Restart(Phase.STOPPING, since_s=0)
    assert played(seen(1, "draining"), seen(2, ""), turn=stopping)[1] == []
    assert played(seen(3, "down"), turn=stopping)[1] == [Action.START]
    turn, _ = played(seen(21, "draining"), turn=stopping)
    assert turn.phase is Phase.FAILED


def test_an_engine_that_cannot_come_up_or_takes_too_long_ends_the_restart() -> None:
    coming = Restart(Phase.COMING, since_s=0)
    turn, done = played(seen(9, "starting", failed="it exits repeatedly"), turn=coming)
    assert (turn.phase, turn.why, done) == (Phase.FAILED, "it exits repeatedly", [])
    turn, _ = played(seen(601, "starting"), turn=coming)
    assert (turn.phase, turn.why) == (Phase.FAILED, "it was not up within 600 s")


def test_a_controller_that_does_not_answer_changes_nothing() -> None:
    for phase in (Phase.LEAVING, Phase.STOPPING, Phase.COMING):
        turn = Restart(phase, since_s=0)
        assert played(seen(3, "", None, others=0), turn=turn) == (turn, [])


def test_an_engine_that_the_controller_does_not_know_is_left_alone() -> None:
    turn, done = played(seen(0, "", None, others=0), seen(10, "", None, others=0), seen(21, "", None, others=0))
    assert (turn.phase, done) == (Phase.FAILED, [])
    assert turn.why == "the controller does not answer, or does not know the engine"


def test_one_that_is_let_in_and_falls_is_told() -> None:
    joining = Restart(Phase.JOINING, since_s=0)
    turn, _ = played(seen(1, "draining"), seen(2, "up"), seen(21, "down"), turn=joining)
    assert (turn.phase, turn.why) == (Phase.FAILED, "it was put back into rotation, but its state is down")


@pytest.mark.parametrize(
    ("phase", "out", "stopped"),
    [
        (Phase.BEGIN, False, False),
        (Phase.LEAVING, True, False),
        (Phase.FINISHING, True, False),
        (Phase.STOPPING, True, True),
        (Phase.COMING, True, True),
        (Phase.JOINING, True, False),
    ],
)
def test_a_turn_says_what_an_interruption_has_to_put_right(phase: Phase, out: bool, stopped: bool) -> None:
    turn = replace(Restart(), phase=phase)
    assert (turn.out, turn.stopped) == (out, stopped)
