"""Boxes and points that a model names in its answer, and the picture with them drawn.

Qwen3-VL gives coordinates in thousandths of the picture's width and height: {"bbox_2d": [x1, y1, x2, y2], "label": "..."} and
{"point_2d": [x, y], "label": "..."}; as an agent {"action": "click", "coordinate": [x, y]}.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from PIL import Image, ImageDraw, ImageFont

SCALE = 1000
BOXES = ("bbox_2d", "bbox", "box_2d", "box")
POINTS = ("point_2d", "point", "coordinate", "coordinates", "position")
LABELS = ("label", "text", "name", "description", "action")
COLOURS = ("#e11d48", "#2563eb", "#16a34a", "#d97706", "#7c3aed", "#0891b2")
MOST = 200


@dataclass(frozen=True)
class Mark:
    """A box (four numbers) or a point (two), 0 to 1000."""

    at: tuple[float, ...]
    label: str = ""

    @property
    def is_box(self) -> bool:
        return len(self.at) == 4

    def pixels(self, width: int, height: int) -> tuple[float, ...]:
        """On a picture of this size."""
        return tuple(value * (height if nth % 2 else width) / SCALE for nth, value in enumerate(self.at))


def values(text: str) -> list[Any]:
    """The JSON that an answer holds, in fences, between words, or as a list that was cut at max tokens."""
    fenced = re.findall(r"```(?:json)?\s*(.*?)(?:```|\Z)", text, re.DOTALL)
    for candidate in (*fenced, text):
        try:
            return [json.loads(candidate)]
        except json.JSONDecodeError:
            continue
    return list(_between_words(text))


def marks(text: str) -> list[Mark]:
    """All boxes and points in an answer, in its order."""
    return [mark for value in values(text) for mark in _marks(value)][:MOST]


def action(text: str) -> dict[str, Any] | None:
    """The next action, if the answer names one."""
    for value in values(text):
        for found in _objects(value):
            if isinstance(found.get("action"), str):
                return found
    return None


def drawn(picture: Image.Image, found: list[Mark]) -> Image.Image:
    """A copy with boxes, points and their labels."""
    copy = picture.convert("RGB")
    draw = ImageDraw.Draw(copy)
    line = max(2, round(max(copy.size) / 400))
    font = ImageFont.load_default(max(12, round(max(copy.size) / 55)))
    for number, mark in enumerate(found):
        colour = COLOURS[number % len(COLOURS)]
        at = mark.pixels(*copy.size)
        if mark.is_box:
            left, right = sorted((at[0], at[2]))
            top, bottom = sorted((at[1], at[3]))
            draw.rectangle((left, top, right, bottom), outline=colour, width=line)
            _label(draw, (left, top), mark.label, colour, font)
        else:
            x, y = at
            reach = line * 4
            draw.line((x - reach, y, x + reach, y), fill=colour, width=line)
            draw.line((x, y - reach, x, y + reach), fill=colour, width=line)
            draw.ellipse((x - reach, y - reach, x + reach, y + reach), outline=colour, width=line)
            _label(draw, (x + reach, y - reach), mark.label, colour, font)
    return copy


def _marks(value: Any) -> Iterator[Mark]:
    for found in _objects(value):
        label = next((str(found[name]) for name in LABELS if isinstance(found.get(name), str)), "")
        for name in (*BOXES, *POINTS):
            at = _numbers(found.get(name))
            if at is not None and len(at) == (4 if name in BOXES else 2):
                yield Mark(at, label[:60])


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        for one in value.values():
            yield from _objects(one)
    elif isinstance(value, list):
        for one in value:
            yield from _objects(one)


def _numbers(value: Any) -> tuple[float, ...] | None:
    if not isinstance(value, list) or not all(isinstance(one, int | float) for one in value):
        return None
    return tuple(min(float(SCALE), max(0.0, float(one))) for one in value)


def _between_words(text: str) -> Iterator[Any]:
    """Every whole JSON object in a text that is more than JSON, or less."""
    decoder, at = json.JSONDecoder(), 0
    while (at := text.find("{", at)) >= 0:
        try:
            value, end = decoder.raw_decode(text, at)
        except json.JSONDecodeError:
            at += 1
            continue
        yield value
        at = end


def _label(draw: ImageDraw.ImageDraw, at: tuple[float, float], words: str, colour: str, font: Any) -> None:
    if not words:
        return
    left, top, right, bottom = draw.textbbox((0, 0), words, font=font)
    x = max(0.0, min(at[0], draw.im.size[0] - (right - left) - 8))
    y = max(0.0, at[1] - (bottom - top) - 8)
    draw.rectangle((x, y, x + right - left + 8, y + bottom - top + 8), fill=colour)
    draw.text((x + 4 - left, y + 4 - top), words, fill="white", font=font)
