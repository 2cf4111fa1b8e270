"""One request in the engine's terms."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Job:
    """What to answer, and what it costs."""

    model: str
    prompt_tokens: int
    media: int  # images and videos
    tokens: list[str]  # the answer, one token an entry
    finish_reason: str
    stream: bool
    include_usage: bool
