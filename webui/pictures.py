"""Reads a picture, and makes it no larger than the visitor wants it sent."""

from __future__ import annotations

import warnings
from io import BytesIO
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

from webui import vision_tokens
from webui.failure import Failure
from webui.language import later, say

MOST_PIXELS = 100_000_000  # 300 MB while it is read; 20 000 x 20 000 is four times that
ANOTHER = later("Attach another one.")
QUALITY = 92
CAMERAS = ("JPEG", "MPO", "WEBP")  # of others Pillow would decode the picture to find the note


def size(path: Path) -> tuple[int, int]:
    """Width and height as people see it (cameras turn pictures by a note in the file), without decoding it."""
    with _opened(path) as picture:
        turned = picture.format in CAMERAS and picture.getexif().get(0x0112, 1) in (5, 6, 7, 8)
        return (picture.height, picture.width) if turned else (picture.width, picture.height)


def read(path: Path) -> Image.Image:
    """The whole picture in RGB, the right way up."""
    with _opened(path) as picture:
        return upright(picture, path.name)


def upright(picture: Image.Image, name: str) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd metadata; the picture itself counts
            turned = ImageOps.exif_transpose(picture)
            if turned.mode in ("RGBA", "LA", "PA") or "transparency" in turned.info:
                turned = turned.convert("RGBA")
                white = Image.new("RGBA", turned.size, "white")
                return Image.alpha_composite(white, turned).convert("RGB")
            return turned.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        raise Failure(say("{name} is damaged and cannot be read to its end.", name=name), say(ANOTHER)) from None


def encoded(picture: Image.Image, suffix: str) -> bytes:
    """As PNG where it came as PNG, so that small print stays sharp; else as JPEG."""
    buffer = BytesIO()
    if suffix == ".png":
        picture.save(buffer, "PNG")
    else:
        picture.save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()


def shrunk(path: Path, longest: int) -> tuple[Image.Image, tuple[int, int]] | None:
    """The picture scaled down and the size it had; None where it is small enough."""
    had = size(path)
    wanted = vision_tokens.shrunk(*had, longest)
    if wanted == had:
        read(path)  # a damaged one is found here, and not by an engine
        return None
    return read(path).resize(wanted, Image.Resampling.LANCZOS), had


def _opened(path: Path) -> Image.Image:
    if path.stat().st_size == 0:
        raise Failure(say("{name} is empty.", name=path.name), say(ANOTHER))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # checked below, with our own limit
            picture = Image.open(path)
    except Image.DecompressionBombError:
        raise _too_large(path.name) from None
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError):
        raise Failure(say("{name} is not a picture that can be read.", name=path.name), say(ANOTHER)) from None
    if picture.width * picture.height > MOST_PIXELS:
        picture.close()
        raise _too_large(path.name, picture.size)
    return picture


def _too_large(name: str, found: tuple[int, int] | None = None) -> Failure:
    sides = f" ({found[0]} × {found[1]})" if found else ""
    return Failure(
        say(
            "{name} has too many pixels{sides}; the most is {most} million.",
            name=name,
            sides=sides,
            most=MOST_PIXELS // 1_000_000,
        ),
        say("Scale it down, then attach it again."),
    )
