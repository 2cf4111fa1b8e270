"""Unrelated single pictures: nothing to find in any cache, so balance is all that counts."""

from random import Random

from benchmarks.workloads.work import Conversation, Turn, Work
from loadtest.content import question


def conversation(seed: int, user: int, number: int) -> Conversation:
    random = Random(f"images {seed} {user} {number}")
    turn = Turn(f"Describe this picture. {question(random, 12)}", picture=100_000 + 1_000 * user + number)
    return Conversation(f"{user}-{number}", (turn,))


IMAGES = Work(
    name="images",
    title="Single pictures, all different",
    users_per_engine=16,
    conversations_per_user=8,
    think_s=0.1,
    max_tokens=32,
    conversation=conversation,
)
