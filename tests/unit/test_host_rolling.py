"""One engine's turn in a rolling restart, look by look."""

from dataclasses import replace
from typing import Any

import pytest

from manyeyes.cli.engine_restart import Action, Observation, Phase, Restart, RestartTimes, next_step

RULES = RestartTimes(leave_s=5, finish_s=60, stop_s=20, start_s=600)


def observed(now_s: float, state: str, in_flight: int | None = 0, **more: Any) -> Observation:
    return Observation(now_s, state, in_flight, **({"other_engines": 2, "is_only_engine": False} | more))


def played(*looks: Observation, progress: Restart | None = None) -> tuple[Restart, list[Action]]:
    """The turn after all looks, and everything that was done."""
    progress, done = progress or Restart(), []
    for observation in looks:
        progress, action = next_step(progress, observation, RULES)
        done += [action] if action else []
    return progress, done


def test_an_engine_is_held_left_alone_stopped_started_warmed_and_let_in() -> None:
    progress, done = played(
        observed(0, "up", 4),
        observed(1, "draining", 4),
        observed(5, "draining", 1),
        observed(6, "draining", 0),
        observed(7, "down", None),
        observed(8, "starting", None),
        observed(30, "warming", 1),
        observed(31, "draining", 0),
        observed(32, "up", 0),
        observed(37, "up", 3),
    )
    assert (progress.phase, progress.unfinished_requests) == (Phase.DONE, 0)
    assert done == [Action.DRAIN, Action.STOP, Action.START, Action.RESUME]


def test_nothing_in_flight_ends_the_wait_only_after_nginx_surely_knows() -> None:
    progress, done = played(observed(0, "up"), observed(4, "draining", 0))
    assert (progress.phase, done) == (Phase.LEAVING, [Action.DRAIN])
    progress, done = played(observed(5, "draining", 0), progress=progress)
    assert (progress.phase, done) == (Phase.STOPPING, [Action.STOP])


@pytest.mark.parametrize("in_flight", [3, None])
def test_after_the_deadline_it_is_stopped_with_what_it_has_and_the_number_is_kept(in_flight: int | None) -> None:
    progress, done = played(
        observed(0, "up"),
        observed(6, "draining", in_flight),
        observed(64, "draining", in_flight),
        observed(67, "draining", in_flight),
    )
    assert (progress.phase, progress.unfinished_requests, done) == (
        Phase.STOPPING,
        in_flight,
        [Action.DRAIN, Action.STOP],
    )


def test_the_last_engine_that_serves_is_not_touched() -> None:
    progress, done = played(
        observed(0, "up", other_engines=0), observed(10, "up", other_engines=0), observed(21, "up", other_engines=0)
    )
    assert (progress.phase, done) == (Phase.FAILED, [])
    assert "no other engine of its pool is up" in progress.reason
    progress, done = played(observed(0, "up", other_engines=0), observed(10, "up", other_engines=1))
    assert done == [Action.DRAIN]


def test_an_engine_alone_in_its_pool_and_one_that_serves_nobody_are_restarted_all_the_same() -> None:
    assert played(observed(0, "up", other_engines=0, is_only_engine=True))[1] == [Action.DRAIN]
    assert played(observed(0, "down", other_engines=0), observed(1, "down", other_engines=0))[1] == [
        Action.DRAIN,
        Action.STOP,
    ]


def test_it_is_not_started_before_the_controller_saw_it_gone() -> None:
    """A restart too quick to be seen would be let in without a warm-up."""
    stopping = Restart(Phase.STOPPING, since_s=0)
    assert played(observed(1, "draining"), observed(2, ""), progress=stopping)[1] == []
    assert played(observed(3, "down"), progress=stopping)[1] == [Action.START]
    progress, _ = played(observed(21, "draining"), progress=stopping)
    assert progress.phase is Phase.FAILED


def test_an_engine_that_cannot_come_up_or_takes_too_long_ends_the_restart() -> None:
    coming = Restart(Phase.STARTING, since_s=0)
    progress, done = played(observed(9, "starting", failure="it exits repeatedly"), progress=coming)
    assert (progress.phase, progress.reason, done) == (Phase.FAILED, "it exits repeatedly", [])
    progress, _ = played(observed(601, "starting"), progress=coming)
    assert (progress.phase, progress.reason) == (Phase.FAILED, "it was not up within 600 s")


def test_a_controller_that_does_not_answer_changes_nothing() -> None:
    for phase in (Phase.LEAVING, Phase.STOPPING, Phase.STARTING):
        progress = Restart(phase, since_s=0)
        assert played(observed(3, "", None, other_engines=0), progress=progress) == (progress, [])


def test_an_engine_that_the_controller_does_not_know_is_left_alone() -> None:
    progress, done = played(
        observed(0, "", None, other_engines=0),
        observed(10, "", None, other_engines=0),
        observed(21, "", None, other_engines=0),
    )
    assert (progress.phase, done) == (Phase.FAILED, [])
    assert progress.reason == "the controller does not answer, or does not know the engine"


def test_one_that_is_let_in_and_falls_is_told() -> None:
    joining = Restart(Phase.JOINING, since_s=0)
    progress, _ = played(observed(1, "draining"), observed(2, "up"), observed(21, "down"), progress=joining)
    assert (progress.phase, progress.reason) == (Phase.FAILED, "it was put back into rotation, but its state is down")


@pytest.mark.parametrize(
    ("phase", "is_out_of_rotation", "is_stopped"),
    [
        (Phase.BEGIN, False, False),
        (Phase.LEAVING, True, False),
        (Phase.FINISHING, True, False),
        (Phase.STOPPING, True, True),
        (Phase.STARTING, True, True),
        (Phase.JOINING, True, False),
    ],
)
def test_a_turn_says_what_an_interruption_has_to_put_right(
    phase: Phase, is_out_of_rotation: bool, is_stopped: bool
) -> None:
    progress = replace(Restart(), phase=phase)
    assert (progress.is_out_of_rotation, progress.is_stopped) == (is_out_of_rotation, is_stopped)
