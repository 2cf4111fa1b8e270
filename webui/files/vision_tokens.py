"""How many tokens a picture or a video will cost, told before it is sent.

Qwen3-VL turns 32 x 32 pixels into one token (patches of 16, merged 2 by 2) after the picture was scaled into the pool's limits;
two frames of a video share their tokens. Follows `smart_resize` of transformers' Qwen2-VL and Qwen3-VL processors.
"""

from __future__ import annotations

from math import ceil, floor, sqrt

from manyeyes.config.pools import Media

SQUARE = 32
AROUND = 2  # the marks before and after a picture
PER_FRAME_PAIR = 8  # time stamp and marks of two frames
LEAST_FRAMES = 4
FRAMES_PER_S = 2.0  # what Qwen3-VL samples by itself


def shrunk(width: int, height: int, longest: int) -> tuple[int, int]:
    """The size with its longer side at most `longest`, the shape kept; never larger than it was."""
    factor = min(1.0, longest / max(width, height))
    return max(1, round(width * factor)), max(1, round(height * factor))


def picture(width: int, height: int, media: Media) -> int:
    """Tokens of one picture of this size."""
    wide, high = _rounded(width), _rounded(height)
    if wide * high > media.max_pixels:
        wide, high = _down(width, height, sqrt(width * height / media.max_pixels))
    elif wide * high < media.min_pixels:
        factor = sqrt(media.min_pixels / (width * height))
        wide, high = ceil(width * factor / SQUARE) * SQUARE, ceil(height * factor / SQUARE) * SQUARE
    return wide * high // SQUARE**2 + AROUND


def frames(seconds: float, per_s: float, most: int) -> int:
    """How many frames are taken from a video."""
    return max(1, min(most, max(LEAST_FRAMES, int(seconds * per_s))))


def video(width: int, height: int, count: int, media: Media) -> int:
    """Tokens of `count` frames of this size."""
    count = min(count, media.video_frames)
    pairs = max(1, ceil(count / 2))
    most = media.video_frames * media.frame_max_pixels
    wide, high = _rounded(width), _rounded(height)
    if pairs * 2 * wide * high > most:
        wide, high = _down(width, height, sqrt(count * width * height / most))
    return pairs * (wide * high // SQUARE**2 + PER_FRAME_PAIR)


def text(words: str) -> int:
    """About so many: four letters of a European language, or one Chinese character, are one token."""
    wide = sum(ord(letter) >= 0x2E80 for letter in words)
    return wide + ceil((len(words) - wide) / 4)


def _rounded(side: int) -> int:
    return max(SQUARE, round(side / SQUARE) * SQUARE)


def _down(width: int, height: int, factor: float) -> tuple[int, int]:
    return (
        max(SQUARE, floor(width / factor / SQUARE) * SQUARE),
        max(SQUARE, floor(height / factor / SQUARE) * SQUARE),
    )
