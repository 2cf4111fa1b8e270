"""Reads the size of an image or a video from its header. It decodes no pixels or frames, and reads only the required
parts.

Pillow reads images (PNG, GIF, JPEG, WEBP); this module reads AVI and MP4 videos.
"""

import binascii
import io
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import dataclass

from PIL import Image

from manyeyes.emulator.responses import RequestError

# A header is nearly always in the first part; a JPEG may have a large colour profile or thumbnail before it.
BASE64_PARTS = (4_096, 262_144, 1 << 62)  # base64 characters, each a multiple of 4
FORMATS = ("PNG", "GIF", "JPEG", "WEBP")
MAX_ASPECT_RATIO = 200  # limit of Qwen3-VL's image processor
Image.MAX_IMAGE_PIXELS = None  # requests.check_pixels limits pixels, as vLLM does


def image_size(text: str) -> tuple[int, int]:
    """Width and height in pixels of the image in a base64 text. Raises RequestError if it cannot be read."""
    for part in BASE64_PARTS:
        data = decode(text[:part])
        try:
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                width, height = image.size
        except (OSError, ValueError, EOFError):
            if part >= len(text):
                break
            continue
        if max(width, height) > MAX_ASPECT_RATIO * min(width, height):
            raise RequestError(f"absolute aspect ratio must be smaller than {MAX_ASPECT_RATIO}")
        return width, height
    raise RequestError("Failed to load image: cannot identify image file")


def payload(url: str) -> str:
    """The part of a base64 data URL after the comma. Raises RequestError for every other URL."""
    if not url.startswith("data:"):
        if url.startswith(("http://", "https://")):
            raise RequestError("This engine is emulated and fetches no media. Send the file as a data URL.")
        raise RequestError("The URL must be either a HTTP, data or file URL.")
    head, comma, text = url.partition(",")
    if not comma or not head.endswith(";base64"):
        raise RequestError("Only base64 data URLs are supported for now.", status=501, kind="NotImplementedError")
    return text


def decode(text: str) -> bytes:
    """Decodes base64 strictly, as vLLM does."""
    try:
        return b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise RequestError("Non-base64 digit found") from None


def big_endian(data: bytes) -> int:
    return int.from_bytes(data, "big")


def little_endian(data: bytes) -> int:
    return int.from_bytes(data, "little")


FRAMES_PER_SECOND = 2  # sampling rate of Qwen3-VL's loader
MIN_FRAMES = 4
BOXES = 1_000  # maximum number of boxes in one parent


@dataclass(frozen=True)
class VideoClip:
    seconds: float
    width: int  # pixels
    height: int  # pixels

    def sampled_frames(self, max_frames: int) -> int:
        return min(max_frames, max(MIN_FRAMES, int(self.seconds * FRAMES_PER_SECOND)))


UNKNOWN_CLIP = VideoClip(8.0, 640, 480)


def read_clip(text: str) -> VideoClip:
    """The video in a base64 text. Raises RequestError unless it begins like MP4, WEBM or AVI."""
    head = file_part(text, 0, 72)
    if head[4:8] == b"ftyp":
        return mp4(text) or UNKNOWN_CLIP
    if head[:4] == b"RIFF":
        return avi(head) or UNKNOWN_CLIP
    if head[:4] == b"\x1a\x45\xdf\xa3":
        return UNKNOWN_CLIP
    raise RequestError("Could not open video stream")


def file_part(text: str, at: int, length: int) -> bytes:
    """`length` bytes from byte `at`. Only these bytes of the base64 text are decoded."""
    end = at + length
    return decode(text[at // 3 * 4 : -(-end // 3) * 4])[at % 3 : at % 3 + length]


def clip(seconds: float, width: int, height: int) -> VideoClip | None:
    return VideoClip(seconds, width, height) if seconds > 0 and width > 0 and height > 0 else None


def avi(head: bytes) -> VideoClip | None:
    if head[24:28] != b"avih" or len(head) < 72:
        return None
    frame_us, frames = little_endian(head[32:36]), little_endian(head[48:52])
    return clip(frame_us * frames / 1e6, little_endian(head[64:68]), little_endian(head[68:72]))


def mp4(text: str) -> VideoClip | None:
    """Reads the boxes up to the movie header and the first track with a size."""
    seconds, size = 0.0, (0, 0)
    for kind, at, end in boxes(text, 0, len(text) * 3 // 4):
        if kind != b"moov":
            continue
        for inner, start, stop in boxes(text, at, end):
            if inner == b"mvhd":
                seconds = movie_seconds(file_part(text, start, 32))
            elif inner == b"trak" and 0 in size:
                headers = [begin for name, begin, _ in boxes(text, start, stop) if name == b"tkhd"]
                size = track_size(file_part(text, headers[0], 96)) if headers else size
    return clip(seconds, *size)


def boxes(text: str, at: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Kind, first byte and end of the content of each box between two positions."""
    for _ in range(BOXES):
        head = file_part(text, at, 16)
        size, content = big_endian(head[:4]), at + 8
        if size == 1:  # a long box has its size after its kind
            size, content = big_endian(head[8:16]), at + 16
        stop = at + size if size else end
        if len(head) < 8 or stop < content or stop > end:
            return
        yield head[4:8], content, stop
        at = stop


def movie_seconds(head: bytes) -> float:
    """Length divided by time scale. Version 1 has longer fields for dates and length."""
    if len(head) < 32:
        return 0.0
    scale, length = (
        (big_endian(head[20:24]), big_endian(head[24:32]))
        if head[0]
        else (big_endian(head[12:16]), big_endian(head[16:20]))
    )
    return length / scale if scale else 0.0


def track_size(head: bytes) -> tuple[int, int]:
    """Width and height: the last two numbers, 16.16 fixed point; 0 for a sound track."""
    at = 88 if head[:1] == b"\1" else 76
    return big_endian(head[at : at + 2]), big_endian(head[at + 4 : at + 6])
