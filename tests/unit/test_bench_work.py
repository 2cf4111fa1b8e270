"""Work from a seed: the same for every gateway, different for every user."""

import orjson
import pytest

from benchmarks import load as works
from benchmarks.measurements import chat_body


@pytest.mark.parametrize("name", ["chat", "images"])
def test_no_two_conversations_share_a_picture(name: str) -> None:
    work = works.ALL[name]
    users, each = 8 * work.users_per_engine, range(work.conversations_per_user)
    first = [work.conversation(1, user, number).turns[0].images for user in range(users) for number in each]
    assert len(set(first)) == len(first)
    assert () not in first


def test_everybody_asks_something_else_about_the_same_document() -> None:
    turns = [works.ALL["document"].conversation(1, user, 0).turns[0] for user in range(20)]
    assert len({turn.images for turn in turns}) == 1
    assert len({turn.text for turn in turns}) == 20


@pytest.mark.parametrize("size", [3_000, 200_000, 2_000_000])
def test_a_body_has_exactly_the_size_that_was_asked_for_and_is_unique(size: int) -> None:
    bodies = [chat_body(size, number) for number in range(4)]
    assert [len(body) for body in bodies] == [size] * 4
    assert len(set(bodies)) == 4
    roles = [message["role"] for message in orjson.loads(bodies[0])["messages"]]
    assert roles == ["user", "assistant", "user"]
