"""Agent that works through screenshots: the prompt of each step, and its result."""

import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from webui.chat.streamed_answer import StreamedAnswer, answer_facts
from webui.i18n import N_, _, ngettext

FIND_BOXES = N_("Find (boxes)")
POINT_AT = N_("Point at")
NEXT_ACTION = N_("Next action")
AGENT_MODES = (FIND_BOXES, POINT_AT, NEXT_ACTION)

AGENT_PROMPTS = {
    FIND_BOXES: "Locate: {instruction}. Answer with JSON only, a list of "
    '{{"bbox_2d": [x1, y1, x2, y2], "label": "..."}}, with coordinates from 0 to 1000 relative to the image.',
    POINT_AT: "Point at: {instruction}. Answer with JSON only, a list of "
    '{{"point_2d": [x, y], "label": "..."}}, with coordinates from 0 to 1000 relative to the image.',
    NEXT_ACTION: "You operate the program in this screenshot. The task: {instruction}.\n{done}Answer with JSON only, the one next action: "
    '{{"action": "click" | "type" | "scroll" | "wait" | "done", "coordinate": [x, y], "text": "...", "reason": "..."}}, '
    "with coordinates from 0 to 1000 relative to the image.",
}


COORDINATE_SCALE = 1000
BOX_KEYS = ("bbox_2d", "bbox", "box_2d", "box")
POINT_KEYS = ("point_2d", "point", "coordinate", "coordinates", "position")
LABEL_KEYS = ("label", "text", "name", "description", "action")
COLOURS = ("#e11d48", "#2563eb", "#16a34a", "#d97706", "#7c3aed", "#0891b2")
MAX_MARKS = 200


@dataclass(frozen=True)
class GroundingMark:
    """A box (four coordinates) or a point (two coordinates), each from 0 to 1000."""

    at: tuple[float, ...]
    label: str = ""

    @property
    def is_box(self) -> bool:
        return len(self.at) == 4

    def pixels(self, width: int, height: int) -> tuple[float, ...]:
        return tuple(value * (height if nth % 2 else width) / COORDINATE_SCALE for nth, value in enumerate(self.at))


@dataclass
class AgentStep:
    file: Path
    answer: StreamedAnswer = field(default_factory=lambda: StreamedAnswer(started_s=time.monotonic()))

    @property
    def marks(self) -> list[GroundingMark]:
        return find_marks(self.answer.rendered()[1])

    @property
    def action(self) -> dict[str, Any] | None:
        return find_action(self.answer.rendered()[1])


@dataclass
class AgentSession:
    """The steps so far. `files` are all screenshots."""

    files: list[str]
    steps: list[AgentStep] = field(default_factory=list)
    broken: bool = False
    """A screenshot could not be read."""

    @property
    def next_file(self) -> str | None:
        return self.files[len(self.steps)] if len(self.steps) < len(self.files) else None

    @property
    def ended(self) -> bool:
        """True if a step failed or the model reported that the task is done."""
        if self.broken:
            return True
        last = self.steps[-1]
        return last.answer.failure is not None or (last.action or {}).get("action") == "done"


def agent_prompt(mode: str, instruction: str, before: list[AgentStep]) -> str:
    """Returns the prompt for the next screenshot. It lists the earlier actions, so that none is repeated."""
    actions = [step.action for step in before if step.action]
    done = "".join(f"Step {number} was {json.dumps(item)}.\n" for number, item in enumerate(actions, 1))
    return AGENT_PROMPTS[mode].format(instruction=instruction.strip() or "the most important element", done=done)


def describe_step(step: AgentStep) -> str:
    if step.answer.failure:
        return str(step.answer.failure)
    if action := step.action:
        at = action.get("coordinate")
        position = _(" at {place}", place=f"{at[0]}, {at[1]}") if isinstance(at, list) and len(at) == 2 else ""
        text = f" {action['text']!r}" if isinstance(action.get("text"), str) and action["text"] else ""
        return f"{action['action']}{text}{position}"
    count = len(step.marks)
    if not count:
        return _("no box or point in the answer: rephrase the instruction, or try another model")
    return ngettext("{count} place found", "{count} places found", count)


def step_facts(step: AgentStep) -> dict[str, Any]:
    """Returns the result of a step for programs. Coordinates are thousandths of the image."""
    return {
        "file": step.file.name,
        "text": step.answer.rendered()[1],
        "action": step.action,
        "marks": [
            {"kind": "box" if mark.is_box else "point", "at": list(mark.at), "label": mark.label} for mark in step.marks
        ],
    } | answer_facts(step.answer)


def parse_json_values(text: str) -> list[Any]:
    """Returns the JSON values in an answer: in fences, between words, or in a list truncated at max tokens."""
    fenced = re.findall(r"```(?:json)?\s*(.*?)(?:```|\Z)", text, re.DOTALL)
    for candidate in (*fenced, text):
        try:
            return [json.loads(candidate)]
        except json.JSONDecodeError:
            continue
    return list(_embedded_objects(text))


def find_marks(text: str) -> list[GroundingMark]:
    return [mark for value in parse_json_values(text) for mark in _marks(value)][:MAX_MARKS]


def find_action(text: str) -> dict[str, Any] | None:
    for value in parse_json_values(text):
        for item in _objects(value):
            if isinstance(item.get("action"), str):
                return item
    return None


def draw_marks(image: Image.Image, marks: list[GroundingMark]) -> Image.Image:
    copy = image.convert("RGB")
    draw = ImageDraw.Draw(copy)
    line = max(2, round(max(copy.size) / 400))
    font = ImageFont.load_default(max(12, round(max(copy.size) / 55)))
    for number, mark in enumerate(marks):
        colour = COLOURS[number % len(COLOURS)]
        at = mark.pixels(*copy.size)
        if mark.is_box:
            left, right = sorted((at[0], at[2]))
            top, bottom = sorted((at[1], at[3]))
            draw.rectangle((left, top, right, bottom), outline=colour, width=line)
            _draw_label(draw, (left, top), mark.label, colour, font)
        else:
            x, y = at
            reach = line * 4
            draw.line((x - reach, y, x + reach, y), fill=colour, width=line)
            draw.line((x, y - reach, x, y + reach), fill=colour, width=line)
            draw.ellipse((x - reach, y - reach, x + reach, y + reach), outline=colour, width=line)
            _draw_label(draw, (x + reach, y - reach), mark.label, colour, font)
    return copy


def _marks(value: Any) -> Iterator[GroundingMark]:
    for item in _objects(value):
        label = next((str(item[name]) for name in LABEL_KEYS if isinstance(item.get(name), str)), "")
        for name in (*BOX_KEYS, *POINT_KEYS):
            at = _numbers(item.get(name))
            if at is not None and len(at) == (4 if name in BOX_KEYS else 2):
                yield GroundingMark(at, label[:60])


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        for item in value.values():
            yield from _objects(item)
    elif isinstance(value, list):
        for item in value:
            yield from _objects(item)


def _numbers(value: Any) -> tuple[float, ...] | None:
    if not isinstance(value, list) or not all(isinstance(item, int | float) for item in value):
        return None
    return tuple(min(float(COORDINATE_SCALE), max(0.0, float(item))) for item in value)


def _embedded_objects(text: str) -> Iterator[Any]:
    """Yields every complete JSON object in a text that is not valid JSON as a whole."""
    decoder, at = json.JSONDecoder(), 0
    while (at := text.find("{", at)) >= 0:
        try:
            value, end = decoder.raw_decode(text, at)
        except json.JSONDecodeError:
            at += 1
            continue
        yield value
        at = end


def _draw_label(draw: ImageDraw.ImageDraw, at: tuple[float, float], label: str, colour: str, font: Any) -> None:
    if not label:
        return
    left, top, right, bottom = draw.textbbox((0, 0), label, font=font)
    x = max(0.0, min(at[0], draw.im.size[0] - (right - left) - 8))
    y = max(0.0, at[1] - (bottom - top) - 8)
    draw.rectangle((x, y, x + right - left + 8, y + bottom - top + 8), fill=colour)
    draw.text((x + 4 - left, y + 4 - top), label, fill="white", font=font)
