"""Seeded test content: sentences, images and videos. No two questions are equal, and no two images have the same bytes or pixels.

Encoding a JPEG of 900 x 700 takes 10 ms, and engines cache images by their content, so a load test needs a new image for
every question. JPEG has restart markers (ITU-T T.81, B.2.1 and E.1.4): data between two markers is decoded without the data
before it. With one marker after each row of blocks, rows can be reordered without encoding again, and 42 rows have more
orders than any test needs.

A video is an AVI file with one JPEG per frame (Motion JPEG): every decoder reads it, and writing it needs no encoder. The
container is RIFF AVI without the OpenDML extensions (Microsoft, "AVI RIFF File Reference"): a list of headers (`avih`,
`strh`, `strf`), a list of frames (`movi`) and an index (`idx1`).
"""

import base64
import io
import re
import struct
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Literal

from PIL import Image, ImageDraw, ImageFont

WORDS = """
    window tower river number label colour shadow engine ticket market garden signal bottle mirror letter corner bridge
    paper table street figure screen button handle ladder border circle copper silver yellow purple narrow wide early
    broken hidden second middle upper lower behind before under inside between written painted printed counted measured
""".split()  # noqa: SIM905, a list of 50 quoted words is harder to read


def sentence(random: Random, words: int) -> str:
    return " ".join(random.choice(WORDS) for _ in range(words)).capitalize() + "."


def question(random: Random, words: int) -> str:
    return f"What about the {sentence(random, words).lower().rstrip('.')}?"


_RESTART = re.compile(rb"\xff[\xd0-\xd7]")
_JPEG_END = b"\xff\xd9"


@dataclass(frozen=True)
class Strips:
    """A JPEG cut into horizontal strips. `head`: everything before the first strip.

    All strips can be reordered but the last, which may be lower than the others.
    """

    head: bytes
    rows: tuple[bytes, ...]
    last: bytes

    def shuffled(self, random: Random) -> bytes:
        """Returns a complete JPEG with the strips in random order."""
        order = random.sample(self.rows, len(self.rows))
        order.append(self.last)
        parts = [self.head, order[0]]
        for number, row in enumerate(order[1:]):
            parts += (_MARKERS[number % 8], row)
        parts.append(_JPEG_END)
        return b"".join(parts)


_MARKERS = tuple(bytes((0xFF, 0xD0 + number)) for number in range(8))


def cut_into_strips(image: Image.Image, quality: int) -> Strips:
    made = io.BytesIO()
    image.save(made, "JPEG", quality=quality, restart_marker_rows=1)
    whole = made.getvalue()
    scan = whole.index(b"\xff\xda")
    start = scan + 2 + int.from_bytes(whole[scan + 2 : scan + 4], "big")
    rows = _RESTART.split(whole[start:].removesuffix(_JPEG_END))
    return Strips(whole[:start], tuple(rows[:-1]), rows[-1])


ImageKind = Literal["photo", "page", "screen"]
# A photograph scaled for the web, a page at 150 dots an inch (half of A4 is margin and line spacing), a laptop's screen.
SIZES: dict[ImageKind, tuple[int, int]] = {"photo": (896, 672), "page": (1240, 1648), "screen": (1280, 720)}


@dataclass(frozen=True)
class SeededImage:
    """An image identified by its name: equal names give equal images, different names give different images."""

    kind: ImageKind
    name: str
    size: tuple[int, int] | None = None

    def jpeg(self) -> bytes:
        width, height = self.size or SIZES[self.kind]
        return strips(self.kind, width, height).shuffled(Random(self.name))

    def data_url(self) -> str:
        return "data:image/jpeg;base64," + base64.b64encode(self.jpeg()).decode()


@cache
def strips(kind: ImageKind, width: int, height: int) -> Strips:
    """Draws and cuts an image; done once per process and size, in 20 to 60 ms."""
    draw, quality = {"photo": (_photo, 84), "page": (_page, 80), "screen": (_screen, 80)}[kind]
    return cut_into_strips(draw(width, height), quality)


def _photo(width: int, height: int) -> Image.Image:
    """Soft shapes under grain, with about the file size of a photograph: 150 KB at 896 x 672."""
    random = Random("photo")
    shapes = Image.frombytes("RGB", (14, 10), random.randbytes(14 * 10 * 3))
    grain = Image.frombytes("RGB", (width // 2, height // 2), random.randbytes((width // 2) * (height // 2) * 3))
    size = (width, height)
    return Image.blend(shapes.resize(size, Image.Resampling.BICUBIC), grain.resize(size), 0.22)


def _page(width: int, height: int) -> Image.Image:
    """Lines of text in rows of 16 pixels, so that a strip contains whole lines and each order is a different text."""
    random = Random("page")
    page = Image.new("RGB", (width, height), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(12)
    for top in range(0, height - 16, 16):
        draw.text((width // 12, top), sentence(random, width // 90), fill=(20, 20, 30), font=font)
    return page


def _screen(width: int, height: int) -> Image.Image:
    random = Random("screen")
    screen = Image.new("RGB", (width, height), (238, 240, 244))
    draw, font = ImageDraw.Draw(screen), ImageFont.load_default(12)
    for top in range(0, height - 16, 16):
        left = 8
        while left < width - 140:
            wide = random.randrange(60, 220)
            if random.random() < 0.5:
                draw.rectangle((left, top + 1, left + wide, top + 14), fill=tuple(random.choices(range(90, 230), k=3)))
            draw.text((left + 4, top + 1), sentence(random, 2), fill=(25, 25, 40), font=font)
            left += wide + 12
    return screen


@dataclass(frozen=True)
class SeededVideo:
    """A video identified by its name: equal names give equal videos."""

    name: str
    seconds: float
    frames_per_second: int = 4
    size: tuple[int, int] = (480, 272)

    def avi(self) -> bytes:
        random = Random(self.name)
        frames = max(1, round(self.seconds * self.frames_per_second))
        base = strips("photo", *self.size)
        return motion_jpeg_avi(
            [base.shuffled(random) for _ in range(frames)], self.frames_per_second, self.size[0], self.size[1]
        )

    def data_url(self) -> str:
        return "data:video/avi;base64," + base64.b64encode(self.avi()).decode()


def motion_jpeg_avi(frames: list[bytes], frames_per_second: int, width: int, height: int) -> bytes:
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
    frame_format = struct.pack("<IiiHH4sIiiII", 40, width, height, 1, 24, b"MJPG", width * height * 3, 0, 0, 0, 0)
    headers = _riff_list(
        b"hdrl",
        _riff_chunk(b"avih", main),
        _riff_list(b"strl", _riff_chunk(b"strh", stream), _riff_chunk(b"strf", frame_format)),
    )
    index, at, chunks = [], 4, []
    for frame in frames:
        chunk = _riff_chunk(b"00dc", frame)
        index.append(struct.pack("<4sIII", b"00dc", 0x10, at, len(frame)))
        chunks.append(chunk)
        at += len(chunk)
    return _riff_chunk(
        b"RIFF", b"AVI " + headers + _riff_list(b"movi", *chunks) + _riff_chunk(b"idx1", b"".join(index))
    )


def _riff_chunk(name: bytes, content: bytes) -> bytes:
    return name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)


def _riff_list(name: bytes, *content: bytes) -> bytes:
    return _riff_chunk(b"LIST", name + b"".join(content))
