"""Batch OCR: page after page of a document, each with the same instruction, no pause, long answers."""

from loadtest.content.images import Picture
from loadtest.users.scenario import Conversation, Scenario, Turn

INSTRUCTION = "Write down all text on this page, line by line, as it is. Do not add anything."


def conversation(seed: int, user: int, number: int) -> Conversation:
    return Conversation((Turn(INSTRUCTION, (Picture("page", f"pages {seed} {user} {number}"),)),))


SCENARIO = Scenario("pages", "Document pages, one after the other (OCR)", 0.0, 256, conversation)
