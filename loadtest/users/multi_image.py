"""One question about four pictures."""

from random import Random

from loadtest.content.images import Picture
from loadtest.content.sentences import question
from loadtest.users.scenario import Conversation, Scenario, Turn

PICTURES = 4


def conversation(seed: int, user: int, number: int) -> Conversation:
    name = f"images {seed} {user} {number}"
    text = f"Compare these pictures. {question(Random(name), 12)}"
    return Conversation((Turn(text, tuple(Picture("photo", f"{name} {one}") for one in range(PICTURES))),))


SCENARIO = Scenario("images", "One question about four pictures", 1.0, 64, conversation)
