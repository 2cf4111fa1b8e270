"""What one person does: conversations, made from a seed alone, the same on every run and for every number of engines."""

from collections.abc import Callable
from dataclasses import dataclass

from loadtest.content.images import Picture
from loadtest.content.videos import Video


@dataclass(frozen=True)
class Turn:
    """One question with what it is about."""

    text: str
    pictures: tuple[Picture, ...] = ()
    video: Video | None = None


@dataclass(frozen=True)
class Conversation:
    """Each turn is sent with everything before it, answers too, as OpenAI clients do."""

    turns: tuple[Turn, ...]


@dataclass(frozen=True)
class Scenario:
    """`conversation(seed, user, number)`: the n-th conversation of a user.

    `think_s`: the pause before a user's next turn lies between half of that and one and a half. `answer_tokens`: the
    length of every answer; with `ignore_eos` so that a run does not depend on what the model has to say (vLLM's extension
    of the API; others ignore it).
    """

    name: str
    title: str
    think_s: float
    answer_tokens: int
    conversation: Callable[[int, int, int], Conversation]
