"""Reads images and renders PDF pages, scaled down to the size that the user chose."""

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any

import pypdfium2 as pdfium
from PIL import Image, UnidentifiedImageError
from pypdfium2 import raw

from webui.files import decoding, vision_tokens
from webui.i18n import N_, _
from webui.user_error import UserError

MAX_SIDE = 4096
"""Maximum longer side of an image in pixels, for any setting."""
ATTACH_ANOTHER = N_("Attach another file.")
QUALITY = 92
CAMERAS = ("JPEG", "MPO", "WEBP")  # for other formats, Pillow would decode the image to find the orientation
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
"""The formats of attachments.IMAGE_TYPES. Pillow would also open formats that no engine accepts, such as ICO."""
ORIENTATION = 0x0112
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""Makes an image upright, by its EXIF orientation."""
BYTES_A_PIXEL = {"WEBP": 24}
"""libwebp holds two canvases and a copy of them in addition to Pillow's image."""


def image_size(path: Path) -> tuple[int, int]:
    """Returns width and height after applying the EXIF orientation, without decoding the image."""
    with _open_image(path) as image:
        return _upright_size(image)


def read_image(path: Path, longest: int = MAX_SIDE) -> Image.Image:
    """Returns the image in RGB, upright, with its longer side at most `longest` pixels."""
    with _decoding(path) as image:
        return _shrink_upright(image, path.name, min(longest, MAX_SIDE))


def encode_image(image: Image.Image, suffix: str) -> bytes:
    """Encodes as PNG for the suffix .png, so that small print stays sharp; else as JPEG."""
    buffer = BytesIO()
    if suffix == ".png":
        image.save(buffer, "PNG")
    else:
        image.save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()


def shrink_image(path: Path, longest: int) -> tuple[Image.Image, tuple[int, int]] | None:
    """Returns the scaled image and its original size; None if it is small enough."""
    with _decoding(path) as image:
        had = _upright_size(image)
        if vision_tokens.shrink_size(*had, min(longest, MAX_SIDE)) == had:
            _load_pixels(image, path.name)  # detects a damaged image before an engine gets it
            return None
        return _shrink_upright(image, path.name, min(longest, MAX_SIDE)), had


@contextmanager
def _decoding(path: Path) -> Iterator[Image.Image]:
    """Opens the image after reserving memory to decode it."""
    with reserve_decoding(path), _open_image(path) as image:
        yield image


@contextmanager
def reserve_decoding(path: Path) -> Iterator[None]:
    """Reserves memory to decode the image and to process it inside the block."""
    with decoding.SHARED_BUDGET.holding(decoding_bytes(path)):
        yield


def decoding_bytes(path: Path) -> int:
    """Returns the memory needed to decode the image, from its header. Raises UserError if it has too many pixels."""
    with _open_image(path) as image:
        return image.width * image.height * BYTES_A_PIXEL.get(image.format or "", decoding.BYTES_A_PIXEL)


def _upright_size(image: Image.Image) -> tuple[int, int]:
    turned = _orientation(image) in (5, 6, 7, 8)
    return (image.height, image.width) if turned else (image.width, image.height)


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ORIENTATION, 1)) if image.format in CAMERAS else 1
    except (OSError, ValueError, TypeError, SyntaxError):
        return 1  # invalid metadata is ignored


def _load_pixels(image: Image.Image, name: str, mode: str | None = None) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid metadata is ignored
            image.load()
            return image if mode in (None, image.mode) else image.convert(mode)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        raise UserError(_("{name} is damaged and cannot be read completely.", name=name), _(ATTACH_ANOTHER)) from None


def _shrink_upright(image: Image.Image, name: str, longest: int) -> Image.Image:
    """Scales first, because each copy of the full image needs as much memory as the image."""
    turn = TURNS.get(_orientation(image))
    size = vision_tokens.shrink_size(*image.size, longest)
    is_transparent = image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info
    loaded = _load_pixels(image, name, "RGBA" if is_transparent else "RGB")
    if loaded is not image:
        image.close()  # releases its pixels
    if size != loaded.size:
        loaded = loaded.resize(size, Image.Resampling.LANCZOS)
    if turn is not None:
        loaded = loaded.transpose(turn)
    if is_transparent:
        white = Image.new("RGBA", loaded.size, "white")
        return Image.alpha_composite(white, loaded).convert("RGB")
    return loaded


def _open_image(path: Path) -> Image.Image:
    if path.stat().st_size == 0:
        raise UserError(_("{name} is empty.", name=path.name), _(ATTACH_ANOTHER))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # decompression bombs are checked below, with our own limit
            image = Image.open(path, formats=FORMATS)
    except Image.DecompressionBombError:
        raise decoding.too_large_error(path.name) from None
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError):
        raise UserError(_("{name} is not an image that can be read.", name=path.name), _(ATTACH_ANOTHER)) from None
    try:
        decoding.check_pixels(path.name, *image.size)
    except UserError:
        image.close()
        raise
    return image


POINTS_PER_INCH = 72
MAX_DPI = 300
MAX_IMAGES, MAX_FORM_DEPTH = 1000, 3
"""How many images of a page are checked for their size, and how many levels of nested forms are searched for them."""
_PDF_LOCK = threading.Lock()  # PDFium is not thread-safe


def count_pages(path: Path) -> int:
    """Returns the number of pages. Raises UserError if the file cannot be opened."""
    with _opened_pdf(path) as document:
        return len(document)


def render_page(path: Path, number: int, longest: int) -> Image.Image:
    """Renders page `number` (from 0) with a longer side of `longest` pixels and at most 300 dpi."""
    side = min(longest, MAX_SIDE)
    # The document's lock is first: waiting for it must not hold memory that others need.
    with _opened_pdf(path) as document, decoding.SHARED_BUDGET.holding(side * side * decoding.BYTES_A_PIXEL):
        try:
            page = document[number]
            page_images = page.get_objects(filter=[raw.FPDF_PAGEOBJ_IMAGE], max_depth=MAX_FORM_DEPTH)
            for page_image in islice(page_images, MAX_IMAGES):
                decoding.check_pixels(path.name, *page_image.get_px_size())
            width, height = page.get_size()
            drawn: Image.Image = page.render(scale=_page_scale(width, height, side)).to_pil().convert("RGB")
        except (pdfium.PdfiumError, ValueError):
            raise UserError(
                _("Page {number} of {name} cannot be rendered.", number=number + 1, name=path.name), _(ATTACH_ANOTHER)
            ) from None
        size = vision_tokens.shrink_size(*drawn.size, side)
        return drawn if size == drawn.size else drawn.resize(size)


def page_sizes(path: Path, longest: int) -> list[tuple[int, int]]:
    """Returns the width and height of each page as an image."""
    sizes = []
    with _opened_pdf(path) as document:
        for number in range(len(document)):
            width, height = document.get_page_size(number)
            scale = _page_scale(width, height, longest)
            sizes.append((max(1, round(width * scale)), max(1, round(height * scale))))
    return sizes


def _page_scale(width: float, height: float, longest: int) -> float:
    return min(longest / max(width, height, 1), MAX_DPI / POINTS_PER_INCH)


@contextmanager
def _opened_pdf(path: Path) -> Iterator[Any]:
    """Opens the document. Only one document is open at a time."""
    if path.stat().st_size == 0:
        raise UserError(_("{name} is empty.", name=path.name), _(ATTACH_ANOTHER))
    with _PDF_LOCK:
        try:
            document = pdfium.PdfDocument(path)
        except pdfium.PdfiumError as error:
            if "password" in str(error).lower():
                raise UserError(
                    _("{name} is locked with a password.", name=path.name),
                    _("Save a copy without a password, then attach it again."),
                ) from None
            raise UserError(_("{name} is not a PDF that can be read.", name=path.name), _(ATTACH_ANOTHER)) from None
        try:
            if len(document) == 0:
                raise UserError(_("{name} has no pages.", name=path.name), _(ATTACH_ANOTHER))
            yield document
        finally:
            document.close()
