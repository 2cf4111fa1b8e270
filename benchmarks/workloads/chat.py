"""Multi-turn chat about one picture: the picture and all earlier answers travel again with each turn."""

from random import Random

from benchmarks.workloads.work import Conversation, Turn, Work
from loadtest.content import question

TURNS = 6


def conversation(seed: int, user: int, number: int) -> Conversation:
    random = Random(f"chat {seed} {user} {number}")
    first = Turn(f"Look at this picture. {question(random, 12)}", picture=1_000 * user + number)
    return Conversation(f"{user}-{number}", (first, *(Turn(question(random, 16)) for _ in range(TURNS - 1))))


CHAT = Work(
    name="chat",
    title="Six turns about one picture",
    users_per_engine=12,
    conversations_per_user=3,
    think_s=0.1,
    max_tokens=32,
    conversation=conversation,
)
