"""One request in the engine's terms."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Medium:
    """One image or video of a prompt."""

    kind: Literal["image", "video"]
    key: int  # stands for its bytes: equal pictures have equal keys, in this process
    offset: int  # prompt tokens before its first vision token
    tokens: int  # vision tokens, without the marks around them
    frames: int  # 1 for an image
    source_pixels: int  # of all frames, as sent
    fitted_pixels: int  # of all frames, as the model sees them


@dataclass(frozen=True)
class Job:
    """What to answer, and what it costs."""

    model: str
    prompt: Sequence[int]  # one number a token: equal words, or places of one picture, have equal numbers
    media: tuple[Medium, ...]
    text: str  # all texts of the prompt
    answer: Sequence[str]  # one token an entry, blanks included
    finish_reason: str
    stream: bool
    include_usage: bool

    @property
    def prompt_tokens(self) -> int:
        return len(self.prompt)
