"""A walk through screenshots: what is asked at each step, and what came of it."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from webui.chat.streamed_answer import Answer, facts
from webui.files import grounding
from webui.files.grounding import Mark
from webui.i18n.language import counted, later, say

FIND = later("Find (boxes)")
POINT = later("Point at")
ACT = later("Next action")
MODES = (FIND, POINT, ACT)

ASKED = {
    FIND: "Locate: {what}. Answer with JSON only, a list of "
    '{{"bbox_2d": [x1, y1, x2, y2], "label": "..."}}, with coordinates from 0 to 1000 relative to the picture.',
    POINT: "Point at: {what}. Answer with JSON only, a list of "
    '{{"point_2d": [x, y], "label": "..."}}, with coordinates from 0 to 1000 relative to the picture.',
    ACT: "You operate the program in this screenshot. The task: {what}.\n{done}Answer with JSON only, the one next action: "
    '{{"action": "click" | "type" | "scroll" | "wait" | "done", "coordinate": [x, y], "text": "...", "reason": "..."}}, '
    "with coordinates from 0 to 1000 relative to the picture.",
}


@dataclass
class Step:
    """One screenshot and the answer about it."""

    file: Path
    answer: Answer = field(default_factory=lambda: Answer(asked_s=time.monotonic()))

    @property
    def marks(self) -> list[Mark]:
        return grounding.marks(self.answer.shown()[1])

    @property
    def action(self) -> dict[str, Any] | None:
        return grounding.action(self.answer.shown()[1])


@dataclass
class Walk:
    """What was done so far; `files` are all screenshots."""

    files: list[str]
    steps: list[Step] = field(default_factory=list)

    @property
    def next_file(self) -> str | None:
        return self.files[len(self.steps)] if len(self.steps) < len(self.files) else None


def prompt(mode: str, what: str, before: list[Step]) -> str:
    """What is asked about the next screenshot; earlier actions are told, so that none is done twice."""
    actions = [step.action for step in before if step.action]
    done = "".join(f"Step {number} was {json.dumps(one)}.\n" for number, one in enumerate(actions, 1))
    return ASKED[mode].format(what=what.strip() or "whatever is most important", done=done)


def sentence(step: Step) -> str:
    """What came of a step."""
    if step.answer.failure:
        return str(step.answer.failure)
    if found := step.action:
        at = found.get("coordinate")
        where = say(" at {place}", place=f"{at[0]}, {at[1]}") if isinstance(at, list) and len(at) == 2 else ""
        text = f" {found['text']!r}" if isinstance(found.get("text"), str) and found["text"] else ""
        return f"{found['action']}{text}{where}"
    count = len(step.marks)
    if not count:
        return say("no box or point in the answer: ask more plainly, or try another model")
    return counted(count, "{count} place found", "{count} places found")


def as_dict(step: Step) -> dict[str, Any]:
    """For programs. Coordinates are thousandths of the picture."""
    return {
        "file": step.file.name,
        "text": step.answer.shown()[1],
        "action": step.action,
        "marks": [
            {"kind": "box" if mark.is_box else "point", "at": list(mark.at), "label": mark.label} for mark in step.marks
        ],
    } | facts(step.answer)
