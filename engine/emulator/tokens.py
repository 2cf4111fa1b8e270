"""How many tokens a text, an image or a video is."""

from math import ceil, floor, sqrt

from engine.emulator import videos

SQUARE = 32  # pixels: Qwen3-VL turns a square of 32 by 32 pixels into one token (patch 16, merged 2 by 2)
LONG_WORD = 16  # characters: a longer word is several tokens, so that text without blanks is not free
PER_MESSAGE = 4  # the marks at both ends of a message, its role and the line break
OPENING = 3  # the marks that open the answer
AROUND_VISION = 2  # the marks before and after an image or a video
FRAMES_PER_TOKEN = 2  # Qwen3-VL merges two video frames


def text_tokens(text: str) -> int:
    """About one per word."""
    return sum(ceil(len(word) / LONG_WORD) for word in text.split())


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


def image_tokens(width: int, height: int, min_pixels: int, max_pixels: int) -> int:
    """Tokens of one image with the marks around it."""
    wide, high = fitted(width, height, min_pixels, max_pixels)
    return wide * high // SQUARE**2 + AROUND_VISION


def video_tokens(min_pixels: int, max_pixels: int) -> int:
    """Tokens of one video with the marks around it."""
    frame = image_tokens(*videos.FRAME_SIZE, min_pixels, max_pixels) - AROUND_VISION
    return videos.FRAMES * frame // FRAMES_PER_TOKEN + AROUND_VISION
