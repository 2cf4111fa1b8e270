"""What users do: the load test's scenarios, each for a fixed number of conversations, the same for every gateway."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from loadtest import users
from loadtest.content import SeededPicture, question
from loadtest.users import UserConversation, UserTurn

THINK_S = 0.1
"""The pause before a user's next turn lies between half of that and one and a half."""
MAX_TOKENS = 32


@dataclass(frozen=True)
class BenchmarkWorkload:
    """A user has one conversation at a time, and starts the next when the last one is answered (a closed loop): every gateway
    gets exactly the same requests, and a slow one takes longer. `conversation(seed, user, number)` is the n-th of a user."""

    name: str
    title: str
    users_per_engine: int
    conversations_per_user: int
    conversation: Callable[[int, int, int], UserConversation]


def ask_about_document(seed: int, user: int, number: int) -> UserConversation:
    """As large as the other pictures."""
    text = question(Random(f"document {seed} {user} {number}"), 16)
    return UserConversation((UserTurn(text, (SeededPicture("photo", f"document {seed}"),)),))


ALL = {
    work.name: work
    for work in (
        BenchmarkWorkload("chat", "Six turns about one picture", 12, 3, users.chat_about_image),
        BenchmarkWorkload("images", "Single pictures, all different", 16, 8, users.ask_about_image),
        BenchmarkWorkload("document", "One document, asked by everybody", 16, 12, ask_about_document),
        BenchmarkWorkload("text", "Chats without pictures", 16, 4, users.chat_in_text),
    )
}
