"""Faults on command: the active faults of this engine. README.md lists the kinds."""

import asyncio
from collections.abc import Callable
from random import random
from typing import Any

from manyeyes.simulator.request import EngineRequest

Values = dict[str, Any]

# Each kind with its values and their defaults; a value with the default None is required. Every kind also accepts
# `for_s`, after which it ends.
KINDS: dict[str, Values] = {
    "dead": {"exit_s": 5.0},  # vLLM's watchdog checks every 5 s
    "hung": {"health": True},
    "slow": {"factor": 10.0},
    "errors": {"rate": 1.0, "status": 500},
    "cut": {"rate": 1.0, "after_tokens": 3},
    "refuse": {},
    "out_of_memory": {"frames": 32, "together": 0},  # together: frames of all videos at the same time; 0: no limit
    "poison": {"marker": None},
}


def parse_fault(document: object) -> tuple[str, Values]:
    """The kind and all its values. Raises ValueError with one sentence."""
    if not isinstance(document, dict) or document.get("kind") not in KINDS:
        raise ValueError(f"kind: expected one of {', '.join(KINDS)}")
    kind = document["kind"]
    known = {**KINDS[kind], "for_s": 10.0 if kind == "refuse" else 0.0}  # 0: until it is removed
    given = {name: value for name, value in document.items() if name != "kind"}
    if unknown := sorted(given.keys() - known.keys()):
        raise ValueError(f"{kind}: unknown values {', '.join(unknown)}; expected {', '.join(known)}")
    values = known | given
    for name, value in values.items():
        check_fault(kind, name, value)
    return kind, values


def check_fault(kind: str, name: str, value: object) -> None:
    if name == "marker":
        if not isinstance(value, str) or not value:
            raise ValueError(f"{kind}.marker: expected a text, got {value!r}")
    elif name == "health":
        if not isinstance(value, bool):
            raise ValueError(f"{kind}.health: expected true or false, got {value!r}")
    elif not isinstance(value, int | float) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{kind}.{name}: expected a number of at least 0, got {value!r}")
    if kind == "refuse" and name == "for_s" and not value:
        raise ValueError(
            "refuse.for_s: expected a number above 0, because a closed port accepts no command to end the fault"
        )


class Faults:
    """The active faults. `changed` is called with the kind of each fault that begins or ends."""

    def __init__(self, changed: Callable[[str], None]) -> None:
        self.on: dict[str, Values] = {}
        self._changed = changed
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def begin(self, kind: str, values: Values) -> None:
        self.end(kind)
        self.on[kind] = values
        if values["for_s"]:
            self._timers[kind] = asyncio.get_running_loop().call_later(values["for_s"], self.end, kind)
        self._changed(kind)

    def end(self, kind: str) -> None:
        if alarm := self._timers.pop(kind, None):
            alarm.cancel()
        if self.on.pop(kind, None) is not None:
            self._changed(kind)

    def end_all(self) -> None:
        for kind in list(self.on):
            self.end(kind)

    def refused_status(self) -> int | None:
        """The status with which this request is refused, if it is refused."""
        errors = self.on.get("errors")
        return int(errors["status"]) if errors and random() < errors["rate"] else None

    def tokens_until_cut(self) -> int | None:
        """The number of tokens after which this answer's connection is cut, if it is cut."""
        cut = self.on.get("cut")
        return int(cut["after_tokens"]) if cut and random() < cut["rate"] else None

    def poisons(self, job: EngineRequest) -> bool:
        poison = self.on.get("poison")
        return poison is not None and poison["marker"] in job.text

    def exhausts_memory(self, job: EngineRequest, frames_in_prefill: int) -> bool:
        """Whether this request kills the engine core.

        `frames_in_prefill`: frames of other videos without a first token.
        """
        limit = self.on.get("out_of_memory")
        if limit is None or not any(medium.kind == "video" for medium in job.media):
            return False
        if any(medium.frames > limit["frames"] for medium in job.media):
            return True
        return bool(0 < limit["together"] < frames_in_prefill + video_frames(job))


def video_frames(job: EngineRequest) -> int:
    return sum(medium.frames for medium in job.media if medium.kind == "video")
