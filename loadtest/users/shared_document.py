"""One hot document: everybody asks about the same page, each something else."""

from random import Random

from loadtest.content.images import Picture
from loadtest.content.sentences import question
from loadtest.users.scenario import Conversation, Scenario, Turn


def conversation(seed: int, user: int, number: int) -> Conversation:
    text = question(Random(f"document {seed} {user} {number}"), 16)
    return Conversation((Turn(text, (Picture("page", f"document {seed}"),)),))


SCENARIO = Scenario("document", "One document, asked by everybody", 1.0, 48, conversation)
