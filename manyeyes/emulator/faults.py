"""Faults on command: what is wrong with this engine at the moment. README.md lists the kinds."""

import asyncio
from collections.abc import Callable
from random import random
from typing import Any

from manyeyes.simulator.request import EngineRequest

Values = dict[str, Any]

# Each kind with its values and their defaults; None must be given. Every kind also takes `for_s`, after which it ends.
KINDS: dict[str, Values] = {
    "dead": {"exit_s": 5.0},  # vLLM's watchdog looks every 5 s
    "hung": {"health": True},
    "slow": {"factor": 10.0},
    "errors": {"rate": 1.0, "status": 500},
    "cut": {"rate": 1.0, "after_tokens": 3},
    "refuse": {},
    "out_of_memory": {"frames": 32, "together": 0},  # together: of all videos at once; 0: any number
    "poison": {"marker": None},
}


def parse_fault(document: object) -> tuple[str, Values]:
    """Kind and all its values. Raises ValueError with one sentence."""
    if not isinstance(document, dict) or document.get("kind") not in KINDS:
        raise ValueError(f"kind wants one of {', '.join(KINDS)}")
    kind = document["kind"]
    known = {**KINDS[kind], "for_s": 10.0 if kind == "refuse" else 0.0}  # 0: until it is taken back
    given = {name: value for name, value in document.items() if name != "kind"}
    if unknown := sorted(given.keys() - known.keys()):
        raise ValueError(f"{kind} has no {', '.join(unknown)}; it has {', '.join(known)}")
    values = known | given
    for name, value in values.items():
        check_fault(kind, name, value)
    return kind, values


def check_fault(kind: str, name: str, value: object) -> None:
    if name == "marker":
        if not isinstance(value, str) or not value:
            raise ValueError(f"{kind}: marker wants a text, found {value!r}")
    elif name == "health":
        if not isinstance(value, bool):
            raise ValueError(f"{kind}: health wants true or false, found {value!r}")
    elif not isinstance(value, int | float) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{kind}: {name} wants a number of at least 0, found {value!r}")
    if kind == "refuse" and name == "for_s" and not value:
        raise ValueError("refuse: for_s wants a number above 0: nobody could take it back through a closed port")


class Faults:
    """Those that are on. `changed` is told the kind of each one that begins or ends."""

    def __init__(self, changed: Callable[[str], None]) -> None:
        self.on: dict[str, Values] = {}
        self._changed = changed
        self._ends: dict[str, asyncio.TimerHandle] = {}

    def begin(self, kind: str, values: Values) -> None:
        self.end(kind)
        self.on[kind] = values
        if values["for_s"]:
            self._ends[kind] = asyncio.get_running_loop().call_later(values["for_s"], self.end, kind)
        self._changed(kind)

    def end(self, kind: str) -> None:
        if alarm := self._ends.pop(kind, None):
            alarm.cancel()
        if self.on.pop(kind, None) is not None:
            self._changed(kind)

    def end_all(self) -> None:
        for kind in list(self.on):
            self.end(kind)

    def refused_status(self) -> int | None:
        """The status to refuse this request with, if this one is to be refused."""
        errors = self.on.get("errors")
        return int(errors["status"]) if errors and random() < errors["rate"] else None

    def tokens_until_cut(self) -> int | None:
        """After how many tokens to cut this answer's connection, if this one is to be cut."""
        cut = self.on.get("cut")
        return int(cut["after_tokens"]) if cut and random() < cut["rate"] else None

    def poisons(self, job: EngineRequest) -> bool:
        poison = self.on.get("poison")
        return poison is not None and poison["marker"] in job.text

    def exhausts_memory(self, job: EngineRequest, frames_in_prefill: int) -> bool:
        """Whether this request kills the engine core, which has so many frames of others' videos without a first token."""
        limit = self.on.get("out_of_memory")
        if limit is None or not any(medium.kind == "video" for medium in job.media):
            return False
        if any(medium.frames > limit["frames"] for medium in job.media):
            return True
        return bool(0 < limit["together"] < frames_in_prefill + video_frames(job))


def video_frames(job: EngineRequest) -> int:
    return sum(medium.frames for medium in job.media if medium.kind == "video")
