"""What a video is, from its header: no frame is decoded, and of the file only the parts that tell are read.

Formats: MP4 (ISO/IEC 14496-12: `mvhd` has the length, `tkhd` the size) and AVI (`avih`, the main header of RIFF AVI).
Any other video that vLLM would try to open, and one whose header does not tell, is taken for eight seconds of 640 x 480.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from manyeyes.emulator.errors import RequestError
from manyeyes.emulator.images import big, decode, little

FRAMES_PER_SECOND = 2  # Qwen3-VL's loader samples so many
LEAST_FRAMES = 4
BOXES = 1_000  # of one parent; a file with more is not read on


@dataclass(frozen=True)
class Clip:
    """Length and size of a video."""

    seconds: float
    width: int  # pixels
    height: int  # pixels

    def sampled_frames(self, most: int) -> int:
        """How many frames the model sees."""
        return min(most, max(LEAST_FRAMES, int(self.seconds * FRAMES_PER_SECOND)))


UNKNOWN = Clip(8.0, 640, 480)


def read(text: str) -> Clip:
    """The clip in a base64 text. Raises RequestError unless it begins like MP4, WEBM or AVI."""
    head = part(text, 0, 72)
    if head[4:8] == b"ftyp":
        return mp4(text) or UNKNOWN
    if head[:4] == b"RIFF":
        return avi(head) or UNKNOWN
    if head[:4] == b"\x1a\x45\xdf\xa3":
        return UNKNOWN
    raise RequestError("Could not open video stream")


def part(text: str, at: int, length: int) -> bytes:
    """`length` bytes from byte `at`; no more of the base64 text is decoded than those."""
    end = at + length
    return decode(text[at // 3 * 4 : -(-end // 3) * 4])[at % 3 : at % 3 + length]


def clip(seconds: float, width: int, height: int) -> Clip | None:
    return Clip(seconds, width, height) if seconds > 0 and width > 0 and height > 0 else None


def avi(head: bytes) -> Clip | None:
    if head[24:28] != b"avih" or len(head) < 72:
        return None
    frame_us, frames = little(head[32:36]), little(head[48:52])
    return clip(frame_us * frames / 1e6, little(head[64:68]), little(head[68:72]))


def mp4(text: str) -> Clip | None:
    """Walk the boxes to the movie's header and to the first track that has a size."""
    seconds, size = 0.0, (0, 0)
    for kind, at, end in boxes(text, 0, len(text) * 3 // 4):
        if kind != b"moov":
            continue
        for inner, start, stop in boxes(text, at, end):
            if inner == b"mvhd":
                seconds = movie_seconds(part(text, start, 32))
            elif inner == b"trak" and 0 in size:
                headers = [begin for name, begin, _ in boxes(text, start, stop) if name == b"tkhd"]
                size = track_size(part(text, headers[0], 96)) if headers else size
    return clip(seconds, *size)


def boxes(text: str, at: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Kind, first byte and end of the content of each box between two places."""
    for _ in range(BOXES):
        head = part(text, at, 16)
        size, content = big(head[:4]), at + 8
        if size == 1:  # a long box has its size after its kind
            size, content = big(head[8:16]), at + 16
        stop = at + size if size else end
        if len(head) < 8 or stop < content or stop > end:
            return
        yield head[4:8], content, stop
        at = stop


def movie_seconds(head: bytes) -> float:
    """Length over time scale; version 1 has longer dates and length."""
    if len(head) < 32:
        return 0.0
    scale, length = (big(head[20:24]), big(head[24:32])) if head[0] else (big(head[12:16]), big(head[16:20]))
    return length / scale if scale else 0.0


def track_size(head: bytes) -> tuple[int, int]:
    """Width and height are the last two numbers, 16.16 fixed point; a sound track has 0."""
    at = 88 if head[:1] == b"\1" else 76
    return big(head[at : at + 2]), big(head[at + 4 : at + 6])
