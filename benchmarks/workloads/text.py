"""Chats without pictures; every second one opens with the same words, as people do."""

from random import Random

from benchmarks.workloads.work import Conversation, Turn, Work
from loadtest.content import question, sentence

TURNS = 4


def conversation(seed: int, user: int, number: int) -> Conversation:
    random = Random(f"text {seed} {user} {number}")
    first = "Hello, can you help me with something?" if (user + number) % 2 else sentence(random, 40)
    return Conversation(f"{user}-{number}", (Turn(first), *(Turn(question(random, 30)) for _ in range(TURNS - 1))))


TEXT = Work(
    name="text",
    title="Chats without pictures",
    users_per_engine=16,
    conversations_per_user=4,
    think_s=0.1,
    max_tokens=32,
    conversation=conversation,
)
