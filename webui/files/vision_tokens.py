"""Estimates the tokens of an image or a video before it is sent.

Qwen3-VL turns 32 x 32 pixels into one token (patches of 16, merged 2 by 2) after scaling the image to the limits of
the pool. Two frames of a video share their tokens. Follows `smart_resize` of transformers' Qwen2-VL and Qwen3-VL
processors.
"""

from math import ceil, floor, sqrt

from manyeyes.config.pools import Media

TOKEN_SIDE = 32
IMAGE_MARK_TOKENS = 2  # the marks before and after an image
FRAME_PAIR_MARK_TOKENS = 8  # time stamp and marks of two frames
MIN_FRAMES = 4
FRAMES_PER_S = 2.0  # the default of Qwen3-VL


def shrink_size(width: int, height: int, longest: int) -> tuple[int, int]:
    """Returns the size scaled down to a longer side of at most `longest`. Keeps the aspect ratio, never enlarges."""
    factor = min(1.0, longest / max(width, height))
    return max(1, round(width * factor)), max(1, round(height * factor))


def image_tokens(width: int, height: int, media: Media) -> int:
    wide, high = _round_side(width), _round_side(height)
    if wide * high > media.max_pixels:
        wide, high = _scale_down(width, height, sqrt(width * height / media.max_pixels))
    elif wide * high < media.min_pixels:
        factor = sqrt(media.min_pixels / (width * height))
        wide, high = ceil(width * factor / TOKEN_SIDE) * TOKEN_SIDE, ceil(height * factor / TOKEN_SIDE) * TOKEN_SIDE
    return wide * high // TOKEN_SIDE**2 + IMAGE_MARK_TOKENS


def sampled_frames(seconds: float, per_s: float, maximum: int) -> int:
    return max(1, min(maximum, max(MIN_FRAMES, int(seconds * per_s))))


def video_tokens(width: int, height: int, count: int, media: Media) -> int:
    count = min(count, media.video_frames)
    pairs = max(1, ceil(count / 2))
    maximum = media.video_frames * media.frame_max_pixels
    wide, high = _round_side(width), _round_side(height)
    if pairs * 2 * wide * high > maximum:
        wide, high = _scale_down(width, height, sqrt(count * width * height / maximum))
    return pairs * (wide * high // TOKEN_SIDE**2 + FRAME_PAIR_MARK_TOKENS)


def text_tokens(text: str) -> int:
    """Estimates the tokens of a text: four letters of a European language, or one Chinese character, are one token."""
    wide = sum(ord(letter) >= 0x2E80 for letter in text)
    return wide + ceil((len(text) - wide) / 4)


def _round_side(side: int) -> int:
    return max(TOKEN_SIDE, round(side / TOKEN_SIDE) * TOKEN_SIDE)


def _scale_down(width: int, height: int, factor: float) -> tuple[int, int]:
    return (
        max(TOKEN_SIDE, floor(width / factor / TOKEN_SIDE) * TOKEN_SIDE),
        max(TOKEN_SIDE, floor(height / factor / TOKEN_SIDE) * TOKEN_SIDE),
    )
