"""One request in the engine's terms, and as a sequence on its way through the engine."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil, floor, sqrt
from typing import Literal

SQUARE = 32  # pixels: Qwen3-VL turns a square of 32 by 32 pixels into one token (patch 16, merged 2 by 2)
LONG_WORD = 16  # characters: a longer word is several tokens, so that text without blanks is not free
PER_MESSAGE = 5  # `<|im_start|>`, the role and a line break before a message; `<|im_end|>` and a line break after it
OPENING = 3  # `<|im_start|>`, `assistant` and a line break open the answer
AROUND_VISION = 2  # the marks before and after an image or a video
FRAMES_PER_TOKEN = 2  # Qwen3-VL merges two video frames
PER_FRAME_PAIR = 8  # `<1.5 seconds>` is six tokens, and each pair of frames has marks of its own

START, END, LINE, VISION_START, VISION_END, SECONDS = map(
    hash, ("<|im_start|>", "<|im_end|>", "\n", "<|vision_start|>", "<|vision_end|>", "<seconds>")
)


def text_tokens(text: str, per_word: float = 1.0) -> list[int]:
    """About `per_word` tokens a word. Equal words are equal tokens, in this process only (Python's own hash of the word)."""
    found = []
    for word in text.split():
        if len(word) <= LONG_WORD:
            found.append(hash(word))
        else:
            found += [hash(word[at : at + LONG_WORD]) for at in range(0, len(word), LONG_WORD)]
    if per_word == 1:
        return found
    # The n-th word ends where n words would: two and three tokens in turn, for two and a half a word.
    return [
        one for n, one in enumerate(found) for _ in range(words_tokens(n + 1, per_word) - words_tokens(n, per_word))
    ]


def words_tokens(words: int, per_word: float) -> int:
    return int(words * per_word + 1e-9)


def before_message(role: str) -> list[int]:
    return [START, hash(role), LINE]


def after_message() -> list[int]:
    return [END, LINE]


def fitted(width: int, height: int, min_pixels: int, max_pixels: int) -> tuple[int, int]:
    """The size an image is resized to: sides in multiples of 32, the area within the limits, the shape nearly kept.

    Follows `smart_resize` of transformers' Qwen2-VL image processor.
    """
    wide, high = max(SQUARE, round(width / SQUARE) * SQUARE), max(SQUARE, round(height / SQUARE) * SQUARE)
    if wide * high > max_pixels:
        factor = sqrt(width * height / max_pixels)
        wide = max(SQUARE, floor(width / factor / SQUARE) * SQUARE)
        high = max(SQUARE, floor(height / factor / SQUARE) * SQUARE)
    elif wide * high < min_pixels:
        factor = sqrt(min_pixels / (width * height))
        wide, high = ceil(width * factor / SQUARE) * SQUARE, ceil(height * factor / SQUARE) * SQUARE
    return wide, high


def image_tokens(wide: int, high: int) -> int:
    """Vision tokens of one image of its fitted size."""
    return wide * high // SQUARE**2


def fitted_frame(width: int, height: int, frames: int, max_pixels: int) -> tuple[int, int]:
    """The size each frame of a video is resized to; `max_pixels` is for all frames together.

    Follows `smart_resize` of transformers' Qwen3-VL video processor.
    """
    pairs = max(1, round(frames / FRAMES_PER_TOKEN))
    wide, high = max(SQUARE, round(width / SQUARE) * SQUARE), max(SQUARE, round(height / SQUARE) * SQUARE)
    if pairs * FRAMES_PER_TOKEN * wide * high > max_pixels:
        factor = sqrt(frames * width * height / max_pixels)
        wide = max(SQUARE, floor(width / factor / SQUARE) * SQUARE)
        high = max(SQUARE, floor(height / factor / SQUARE) * SQUARE)
    return wide, high


def video_tokens(wide: int, high: int, frames: int) -> int:
    """Vision tokens of one video of its fitted size, with the time stamps and marks of each pair of frames."""
    pairs = max(1, ceil(frames / FRAMES_PER_TOKEN))
    return pairs * (image_tokens(wide, high) + PER_FRAME_PAIR)


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
    hashes: list[int] = field(default_factory=list)  # of the full blocks of prompt and answer, see kv_cache.py
    chain: int = 0  # the conversation whose blocks it continues, where ConversationKvCache counts instead of hashes
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
