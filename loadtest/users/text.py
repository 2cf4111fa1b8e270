"""Chats without pictures; every second one opens with the same words, as people do."""

from random import Random

from loadtest.content.sentences import question, sentence
from loadtest.users.scenario import Conversation, Scenario, Turn

TURNS = 4


def conversation(seed: int, user: int, number: int) -> Conversation:
    random = Random(f"text {seed} {user} {number}")
    first = "Hello, can you help me with something?" if (user + number) % 2 else sentence(random, 40)
    return Conversation((Turn(first), *(Turn(question(random, 30)) for _ in range(TURNS - 1))))


SCENARIO = Scenario("text", "Chats without pictures", 2.0, 64, conversation)
