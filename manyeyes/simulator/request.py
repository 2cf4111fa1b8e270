"""A request as the engine sees it (tokens and media), and its state as a sequence in the engine."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil, floor, sqrt
from typing import Literal

SQUARE = 32  # pixels: Qwen3-VL turns a square of 32 by 32 pixels into one token (patch 16, merged 2 by 2)
LONG_WORD = 16  # characters; a longer word is several tokens, so that text without spaces costs tokens, too
PER_MESSAGE = 5  # `<|im_start|>`, the role and a line break before a message; `<|im_end|>` and a line break after it
OPENING = 3  # `<|im_start|>`, `assistant` and a line break open the answer
AROUND_VISION = 2  # the markers before and after an image or a video
FRAMES_PER_TOKEN = 2  # Qwen3-VL merges two video frames
PER_FRAME_PAIR = 8  # `<1.5 seconds>` is six tokens, and each pair of frames has two markers

START, END, LINE, VISION_START, VISION_END, SECONDS = map(
    hash, ("<|im_start|>", "<|im_end|>", "\n", "<|vision_start|>", "<|vision_end|>", "<seconds>")
)


def text_tokens(text: str, per_word: float = 1.0) -> list[int]:
    """About `per_word` tokens per word. Equal words give equal tokens, within this process only (Python's hash of the word)."""
    tokens = []
    for word in text.split():
        if len(word) <= LONG_WORD:
            tokens.append(hash(word))
        else:
            tokens += [hash(word[at : at + LONG_WORD]) for at in range(0, len(word), LONG_WORD)]
    if per_word == 1:
        return tokens
    # The first n words have as many tokens as n words should: with 2.5 tokens per word, words alternate between 2 and 3.
    return [
        token
        for n, token in enumerate(tokens)
        for _ in range(words_tokens(n + 1, per_word) - words_tokens(n, per_word))
    ]


def words_tokens(words: int, per_word: float) -> int:
    return int(words * per_word + 1e-9)


def before_message(role: str) -> list[int]:
    return [START, hash(role), LINE]


def after_message() -> list[int]:
    return [END, LINE]


def fitted(width: int, height: int, min_pixels: int, max_pixels: int) -> tuple[int, int]:
    """The size an image is resized to: sides in multiples of 32, area within the limits, nearly the same aspect ratio.

    Follows `smart_resize` of transformers' Qwen2-VL image processor.
    """
    new_width, new_height = max(SQUARE, round(width / SQUARE) * SQUARE), max(SQUARE, round(height / SQUARE) * SQUARE)
    if new_width * new_height > max_pixels:
        factor = sqrt(width * height / max_pixels)
        new_width = max(SQUARE, floor(width / factor / SQUARE) * SQUARE)
        new_height = max(SQUARE, floor(height / factor / SQUARE) * SQUARE)
    elif new_width * new_height < min_pixels:
        factor = sqrt(min_pixels / (width * height))
        new_width, new_height = ceil(width * factor / SQUARE) * SQUARE, ceil(height * factor / SQUARE) * SQUARE
    return new_width, new_height


def image_tokens(width: int, height: int) -> int:
    """Vision tokens of one image of this fitted size."""
    return width * height // SQUARE**2


def fitted_frame(width: int, height: int, frames: int, max_pixels: int) -> tuple[int, int]:
    """The size to which each frame of a video is resized; `max_pixels` is the limit for all frames together.

    Follows `smart_resize` of transformers' Qwen3-VL video processor.
    """
    pairs = max(1, round(frames / FRAMES_PER_TOKEN))
    new_width, new_height = max(SQUARE, round(width / SQUARE) * SQUARE), max(SQUARE, round(height / SQUARE) * SQUARE)
    if pairs * FRAMES_PER_TOKEN * new_width * new_height > max_pixels:
        factor = sqrt(frames * width * height / max_pixels)
        new_width = max(SQUARE, floor(width / factor / SQUARE) * SQUARE)
        new_height = max(SQUARE, floor(height / factor / SQUARE) * SQUARE)
    return new_width, new_height


def video_tokens(width: int, height: int, frames: int) -> int:
    """Vision tokens of one video of this fitted size, with the time stamps and markers of each pair of frames."""
    pairs = max(1, ceil(frames / FRAMES_PER_TOKEN))
    return pairs * (image_tokens(width, height) + PER_FRAME_PAIR)


@dataclass(frozen=True)
class MediaItem:
    kind: Literal["image", "video"]
    key: int  # identifies its bytes: equal media have equal keys, within this process
    offset: int  # prompt tokens before its first vision token
    tokens: int  # vision tokens, without the markers around them
    frames: int  # 1 for an image
    source_pixels: int  # of all frames, as sent
    fitted_pixels: int  # of all frames, after resizing


@dataclass(frozen=True)
class EngineRequest:
    """The prompt with its media, and the answer to produce."""

    model: str
    prompt: Sequence[int]  # one number per token: equal words, or equal positions in one image, have equal numbers
    media: tuple[MediaItem, ...]
    text: str  # all texts of the prompt
    answer: Sequence[str]  # one token per entry, including spaces
    finish_reason: str
    stream: bool
    include_usage: bool
    cache_salt: str = ""  # the prefix cache serves only requests with the same salt

    @property
    def prompt_tokens(self) -> int:
        return len(self.prompt)


@dataclass(eq=False, slots=True)
class RunningSequence:
    """The state of a request in the engine. Times are seconds of one monotonic clock."""

    job: EngineRequest
    arrived: float  # before rendering, as vLLM counts
    queued: float = 0.0  # passed to the scheduler
    scheduled: float = 0.0  # first iteration
    first_token: float = 0.0
    last_token: float = 0.0
    computed: int = 0  # tokens with computed KV
    generated: int = 0  # generated tokens of the answer
    cached: int = 0  # prompt tokens found in the prefix cache when first scheduled
    preemptions: int = 0
    ended: bool = False  # answered or aborted: no more tokens
    hashes: list[int] = field(default_factory=list)  # of the full blocks of prompt and answer, see kv_cache.py
    chain: int = 0  # the conversation whose blocks it continues; used by ConversationKvCache instead of hashes
    full: int = 0  # full blocks at the last check
    cached_blocks: list[int] = field(default_factory=list)  # hashes of its blocks in the prefix cache
    private: int = 0  # number of its other blocks
    waiter: asyncio.Future[None] | None = None  # resolved when there are more tokens
    prompt_tokens: int = field(init=False)

    def __post_init__(self) -> None:
        self.prompt_tokens = len(self.job.prompt)

    @property
    def tokens(self) -> int:
        """Tokens of the prompt and of the answer so far."""
        return self.prompt_tokens + self.generated

    @property
    def answered(self) -> bool:
        return self.generated >= len(self.job.answer)

    def wake(self) -> None:
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)
