"""One request in the engine's terms, and as a sequence on its way through the engine."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class MediaItem:
    kind: Literal["image", "video"]
    key: int  # stands for its bytes: equal pictures have equal keys, in this process
    offset: int  # prompt tokens before its first vision token
    tokens: int  # vision tokens, without the marks around them
    frames: int  # 1 for an image
    source_pixels: int  # of all frames, as sent
    fitted_pixels: int  # of all frames, as the model sees them


@dataclass(frozen=True)
class EngineRequest:
    """What to answer, and what it costs."""

    model: str
    prompt: Sequence[int]  # one number a token: equal words, or places of one picture, have equal numbers
    media: tuple[MediaItem, ...]
    text: str  # all texts of the prompt
    answer: Sequence[str]  # one token an entry, blanks included
    finish_reason: str
    stream: bool
    include_usage: bool

    @property
    def prompt_tokens(self) -> int:
        return len(self.prompt)


@dataclass(eq=False, slots=True)
class RunningSequence:
    """How far a job has come. Times are seconds of one monotonic clock."""

    job: EngineRequest
    arrived: float  # before rendering, as vLLM counts
    queued: float = 0.0  # handed to the scheduler
    scheduled: float = 0.0  # first iteration
    first_token: float = 0.0
    last_token: float = 0.0
    computed: int = 0  # tokens whose KV there is
    generated: int = 0  # tokens of the answer that there are
    cached: int = 0  # prompt tokens found in the prefix cache at first
    preemptions: int = 0
    ended: bool = False  # answered, aborted or given up: nothing comes any more
    hashes: list[int] = field(default_factory=list)  # of the full blocks of prompt and answer, see blocks.py
    chain: int = 0  # the conversation whose blocks it continues, where kv_chains.py counts instead of hashes
    full: int = 0  # blocks that were full when last looked at
    held: list[int] = field(default_factory=list)  # hashes of blocks in the prefix cache that it holds
    private: int = 0  # other blocks that it holds
    waiter: asyncio.Future[None] | None = None  # who is to be told of more tokens
    prompt_tokens: int = field(init=False)

    def __post_init__(self) -> None:
        self.prompt_tokens = len(self.job.prompt)

    @property
    def tokens(self) -> int:
        """Prompt and answer as far as known."""
        return self.prompt_tokens + self.generated

    @property
    def answered(self) -> bool:
        return self.generated >= len(self.job.answer)

    def wake(self) -> None:
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)
