"""One question about one picture, each time a picture nobody has seen."""

from random import Random

from loadtest.content.images import Picture
from loadtest.content.sentences import question
from loadtest.users.scenario import Conversation, Scenario, Turn


def conversation(seed: int, user: int, number: int) -> Conversation:
    name = f"image {seed} {user} {number}"
    text = f"Describe this picture. {question(Random(name), 12)}"
    return Conversation((Turn(text, (Picture("photo", name),)),))


SCENARIO = Scenario("image", "One question about one picture", 1.0, 64, conversation)
