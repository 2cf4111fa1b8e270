"""Videos from a seed: AVI with one JPEG per frame (Motion JPEG), which every decoder reads and which needs no encoder.

The container is RIFF AVI as OpenDML's predecessor has it (Microsoft, "AVI RIFF File Reference"): a list of headers (`avih`,
`strh`, `strf`), a list of frames (`movi`) and an index (`idx1`).
"""

import base64
import struct
from dataclasses import dataclass
from random import Random

from loadtest.content.images import strips


@dataclass(frozen=True)
class Video:
    """One video by name; the same name is the same video."""

    name: str
    seconds: float
    frames_per_second: int = 4
    size: tuple[int, int] = (480, 272)

    def avi(self) -> bytes:
        random = Random(self.name)
        frames = max(1, round(self.seconds * self.frames_per_second))
        base = strips("photo", *self.size)
        return mjpeg([base.shuffled(random) for _ in range(frames)], self.frames_per_second, self.size[0], self.size[1])

    def data_url(self) -> str:
        return "data:video/avi;base64," + base64.b64encode(self.avi()).decode()


def mjpeg(frames: list[bytes], frames_per_second: int, width: int, height: int) -> bytes:
    largest = max(len(frame) for frame in frames)
    frame_us = 1_000_000 // frames_per_second
    main = struct.pack(
        "<14I", frame_us, largest * frames_per_second, 0, 0x10, len(frames), 0, 1, largest, width, height, 0, 0, 0, 0
    )
    stream = struct.pack(
        "<4s4sIHHIIIIIIII4H",
        *(b"vids", b"MJPG", 0, 0, 0, 0, 1, frames_per_second, 0, len(frames), largest, 0xFFFFFFFF, 0),
        *(0, 0, width, height),
    )
    picture = struct.pack("<IiiHH4sIiiII", 40, width, height, 1, 24, b"MJPG", width * height * 3, 0, 0, 0, 0)
    headers = _list(b"hdrl", _chunk(b"avih", main), _list(b"strl", _chunk(b"strh", stream), _chunk(b"strf", picture)))
    index, at, chunks = [], 4, []
    for frame in frames:
        chunk = _chunk(b"00dc", frame)
        index.append(struct.pack("<4sIII", b"00dc", 0x10, at, len(frame)))
        chunks.append(chunk)
        at += len(chunk)
    return _chunk(b"RIFF", b"AVI " + headers + _list(b"movi", *chunks) + _chunk(b"idx1", b"".join(index)))


def _chunk(name: bytes, content: bytes) -> bytes:
    return name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)


def _list(name: bytes, *content: bytes) -> bytes:
    return _chunk(b"LIST", name + b"".join(content))
