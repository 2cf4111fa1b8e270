"""Turns the pages of a PDF into pictures."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pypdfium2 as pdfium
from PIL import Image
from pypdfium2 import raw

from webui.files import decoding, images, vision_tokens
from webui.i18n.translations import N_, _
from webui.user_error import UserError

ATTACH_ANOTHER = N_("Attach another file.")
POINTS_PER_INCH = 72
MAX_DPI = 300
MAX_IMAGES, MAX_FORM_DEPTH = 1000, 3
"""How many pictures of a page are judged by their size, and in how many forms within forms they are looked for."""
_ONE_AT_A_TIME = threading.Lock()  # PDFium is not thread-safe


def count_pages(path: Path) -> int:
    """How many pages. Raises UserError where it cannot be opened."""
    with _ONE_AT_A_TIME:
        document = _open_pdf(path)
        try:
            return len(document)
        finally:
            document.close()


def render_page(path: Path, number: int, longest: int) -> Image.Image:
    """Page `number` (from 0), its longer side `longest` pixels, at most 300 dots an inch."""
    side = min(longest, images.MAX_SIDE)
    # The lock first: who waits for it would keep the room from others.
    with _ONE_AT_A_TIME, decoding.SHARED_BUDGET.holding(side * side * decoding.BYTES_A_PIXEL):
        document = _open_pdf(path)
        try:
            return _render(document, path.name, number, side)
        finally:
            document.close()


def page_sizes(path: Path, longest: int) -> list[tuple[int, int]]:
    """Width and height that each page will have as a picture."""
    with _ONE_AT_A_TIME:
        document = _open_pdf(path)
        try:
            return list(_page_sizes(document, longest))
        finally:
            document.close()


def _page_sizes(document: Any, longest: int) -> Iterator[tuple[int, int]]:
    for number in range(len(document)):
        width, height = document.get_page_size(number)
        scale = _scale(width, height, longest)
        yield max(1, round(width * scale)), max(1, round(height * scale))


def _scale(width: float, height: float, longest: int) -> float:
    return min(longest / max(width, height, 1), MAX_DPI / POINTS_PER_INCH)


def _render(document: Any, name: str, number: int, longest: int) -> Image.Image:
    try:
        found = document[number]
        for image in islice(found.get_objects(filter=[raw.FPDF_PAGEOBJ_IMAGE], max_depth=MAX_FORM_DEPTH), MAX_IMAGES):
            decoding.check_pixels(name, *image.get_px_size())
        width, height = found.get_size()
        picture: Image.Image = found.render(scale=_scale(width, height, longest)).to_pil().convert("RGB")
    except (pdfium.PdfiumError, ValueError):
        raise UserError(
            _("Page {number} of {name} cannot be drawn.", number=number + 1, name=name), _(ATTACH_ANOTHER)
        ) from None
    wanted = vision_tokens.shrink_size(*picture.size, longest)
    return picture if wanted == picture.size else picture.resize(wanted)


def _open_pdf(path: Path) -> Any:
    if path.stat().st_size == 0:
        raise UserError(_("{name} is empty.", name=path.name), _(ATTACH_ANOTHER))
    try:
        document = pdfium.PdfDocument(path)
    except pdfium.PdfiumError as error:
        if "password" in str(error).lower():
            raise UserError(
                _("{name} is locked with a password.", name=path.name),
                _("Save a copy without a password, then attach it again."),
            ) from None
        raise UserError(_("{name} is not a PDF that can be read.", name=path.name), _(ATTACH_ANOTHER)) from None
    if len(document) == 0:
        document.close()
        raise UserError(_("{name} has no page.", name=path.name), _(ATTACH_ANOTHER))
    return document
