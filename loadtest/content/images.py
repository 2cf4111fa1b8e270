"""Pictures from a seed, each with bytes and pixels of its own: photographs, document pages, screenshots."""

import base64
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Literal

from PIL import Image, ImageDraw, ImageFont

from loadtest.content.jpeg_strips import Strips, cut
from loadtest.content.sentences import sentence

Kind = Literal["photo", "page", "screen"]
# A photograph scaled for the web, a page at 150 dots an inch (half of A4 is margin and line spacing), a laptop's screen.
SIZES: dict[Kind, tuple[int, int]] = {"photo": (896, 672), "page": (1240, 1648), "screen": (1280, 720)}


@dataclass(frozen=True)
class Picture:
    """One picture by name; the same name is the same picture, another name is another one."""

    kind: Kind
    name: str
    size: tuple[int, int] | None = None

    def jpeg(self) -> bytes:
        width, height = self.size or SIZES[self.kind]
        return strips(self.kind, width, height).shuffled(Random(self.name))

    def data_url(self) -> str:
        return "data:image/jpeg;base64," + base64.b64encode(self.jpeg()).decode()


@cache
def strips(kind: Kind, width: int, height: int) -> Strips:
    """Made once per process and size: 20 to 60 ms."""
    return cut({"photo": _photo, "page": _page, "screen": _screen}[kind](width, height), quality=80)


def _photo(width: int, height: int) -> Image.Image:
    """Soft shapes under grain: about what a photograph of this size weighs, 150 KB at 896 x 672."""
    random = Random("photo")
    shapes = Image.frombytes("RGB", (14, 10), random.randbytes(14 * 10 * 3))
    grain = Image.frombytes("RGB", (width // 2, height // 2), random.randbytes((width // 2) * (height // 2) * 3))
    size = (width, height)
    return Image.blend(shapes.resize(size, Image.Resampling.BICUBIC), grain.resize(size), 0.22)


def _page(width: int, height: int) -> Image.Image:
    """Lines of text in rows of 16 pixels, so that a strip holds whole lines and other orders are other texts."""
    random = Random("page")
    page = Image.new("RGB", (width, height), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(12)
    for top in range(0, height - 16, 16):
        draw.text((width // 12, top), sentence(random, width // 90), fill=(20, 20, 30), font=font)
    return page


def _screen(width: int, height: int) -> Image.Image:
    """Rows of buttons and labels."""
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
