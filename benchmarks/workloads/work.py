"""What users do: conversations of turns, the same for every gateway, made from a seed alone."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Turn:
    """One question; `picture` is the number of a generated picture (pictures.py), or None."""

    text: str
    picture: int | None = None


@dataclass(frozen=True)
class Conversation:
    """Turns of one chat. Each is sent with everything before it, as OpenAI clients do."""

    name: str
    turns: tuple[Turn, ...]


@dataclass(frozen=True)
class Work:
    """`conversations(seed, user, number)`: the n-th conversation of a user.

    A user has one at a time, and starts the next when the last one is answered (a closed loop): every gateway gets exactly
    the same requests, and a slow one takes longer. `think_s`: the pause before a user's next turn lies between half of
    that and one and a half.
    """

    name: str
    title: str
    users_per_engine: int
    conversations_per_user: int
    think_s: float
    max_tokens: int
    conversation: Callable[[int, int, int], Conversation]
