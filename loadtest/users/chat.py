"""Six turns about one picture: the picture and all earlier answers travel again with each turn."""

from random import Random

from loadtest.content.images import Picture
from loadtest.content.sentences import question
from loadtest.users.scenario import Conversation, Scenario, Turn

TURNS = 6


def conversation(seed: int, user: int, number: int) -> Conversation:
    name = f"chat {seed} {user} {number}"
    random = Random(name)
    first = Turn(f"Look at this picture. {question(random, 12)}", (Picture("photo", name),))
    return Conversation((first, *(Turn(question(random, 16)) for _ in range(TURNS - 1))))


SCENARIO = Scenario("chat", "Six turns about one picture", 2.0, 48, conversation)
