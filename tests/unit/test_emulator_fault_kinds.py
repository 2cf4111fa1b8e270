import asyncio
from dataclasses import replace

import pytest

from manyeyes.emulator import faults
from manyeyes.emulator.faults import Faults
from tests.unit.emulated import medium, sequence


@pytest.mark.parametrize(
    ("document", "complaint"),
    [
        ({}, "kind: expected one of dead, hung"),
        ("hung", "kind: expected one of dead, hung"),
        ({"kind": "broken"}, "kind: expected one of dead, hung"),
        ({"kind": "slow", "times": 3}, "slow: unknown values times; expected factor, for_s"),
        ({"kind": "slow", "factor": "3"}, "factor: expected a number of at least 0, got '3'"),
        ({"kind": "hung", "health": 1}, "health: expected true or false, got 1"),
        ({"kind": "poison"}, "marker: expected a text, got None"),
        ({"kind": "refuse", "for_s": 0}, "a closed port"),
    ],
)
def test_a_wrong_fault_is_refused_with_its_reason(document: object, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        faults.parse_fault(document)


def test_a_fault_has_defaults_and_an_end() -> None:
    assert faults.parse_fault({"kind": "slow"}) == ("slow", {"factor": 10.0, "for_s": 0.0})
    assert faults.parse_fault({"kind": "refuse"})[1]["for_s"] > 0


def test_whoever_listens_is_told_of_each_beginning_and_end() -> None:
    told: list[str] = []
    state = Faults(told.append)
    state.begin(*faults.parse_fault({"kind": "slow"}))
    state.begin(*faults.parse_fault({"kind": "slow", "factor": 3}))
    state.end_all()
    state.end("hung")
    assert told == ["slow"] * 4  # on, off and on again, off
    assert state.on == {}


async def test_a_fault_ends_by_itself_after_its_time() -> None:
    ended = asyncio.Event()
    state = Faults(lambda kind: None if state.on else ended.set())
    state.begin(*faults.parse_fault({"kind": "hung", "for_s": 0.01}))
    assert "hung" in state.on
    await asyncio.wait_for(ended.wait(), 10)
    assert state.on == {}


def test_errors_and_cuts_come_at_their_rate() -> None:
    state = Faults(lambda kind: None)
    assert state.refused_status() is state.tokens_until_cut() is None
    state.begin(*faults.parse_fault({"kind": "errors", "rate": 1, "status": 503}))
    state.begin(*faults.parse_fault({"kind": "cut", "rate": 0}))
    assert state.refused_status() == 503
    assert state.tokens_until_cut() is None


def test_only_the_marked_request_is_poisonous() -> None:
    state = Faults(lambda kind: None)
    job = sequence(5).job
    assert not state.poisons(job)
    state.begin(*faults.parse_fault({"kind": "poison", "marker": "lethal"}))
    assert not state.poisons(job)


def test_videos_that_are_too_long_together_exhaust_the_memory_and_pictures_never_do() -> None:
    state = Faults(lambda kind: None)
    state.begin(*faults.parse_fault({"kind": "out_of_memory", "together": 40}))
    video = sequence(100, media=(replace(medium(1), kind="video", frames=16),)).job
    picture = sequence(100, media=(medium(2),)).job
    assert not state.exhausts_memory(video, 24)
    assert state.exhausts_memory(video, 25)
    assert not state.exhausts_memory(picture, 400)
