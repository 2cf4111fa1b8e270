"""One hot document: everybody asks about the same picture, each something else."""

from random import Random

from benchmarks.workloads.work import Conversation, Turn, Work
from loadtest.content import question

PICTURE = 900_000


def conversation(seed: int, user: int, number: int) -> Conversation:
    random = Random(f"document {seed} {user} {number}")
    return Conversation(f"{user}-{number}", (Turn(question(random, 16), picture=PICTURE),))


DOCUMENT = Work(
    name="document",
    title="One document, asked by everybody",
    users_per_engine=16,
    conversations_per_user=12,
    think_s=0.1,
    max_tokens=32,
    conversation=conversation,
)
