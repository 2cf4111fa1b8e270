"""Several questions at once, each to its own model, and which of them was how fast."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from webui.chat.sampling_settings import Knobs
from webui.chat.single_request import Asker
from webui.chat.streamed_answer import Answer, facts, note, plain
from webui.i18n.language import say

TELL_S = 0.15
EQUAL = 1.05
"""Less than so much slower is as fast."""


@dataclass
class Lane:
    """One question to one model."""

    text: str
    files: list[str]
    knobs: Knobs
    answer: Answer = field(default_factory=lambda: Answer(asked_s=time.monotonic()))

    @property
    def model(self) -> str:
        return self.knobs.model or say("no model")


@dataclass
class Race:
    lanes: list[Lane]
    begun_s: float = field(default_factory=time.monotonic)
    ended_s: float | None = None

    @property
    def speed_up(self) -> float | None:
        """How much longer the same would have taken one after the other."""
        times = [lane.answer.total_s for lane in self.lanes]
        if self.ended_s is None or len(times) < 2 or any(one is None for one in times):
            return None
        took_s = max(one or 0.0 for one in times)
        return sum(one or 0.0 for one in times) / took_s if took_s > 0 else None


async def run(race: Race, asker: Asker, visit: str, key: str) -> AsyncIterator[None]:
    """Asks all lanes at once and yields while answers come."""
    asking = [
        asyncio.create_task(
            asker.ask(lane.text, lane.files, lane.knobs, f"{visit}-{nth}", key, lane.answer), name=lane.model
        )
        for nth, lane in enumerate(race.lanes)
    ]
    try:
        left: set[asyncio.Task[None]] = set(asking)
        while left:
            _, left = await asyncio.wait(left, timeout=TELL_S)
            yield
    finally:
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
        race.ended_s = time.monotonic()


def verdicts(race: Race) -> list[str]:
    """A few words for each lane: fastest, or how much slower; empty while it is not known."""
    times = [lane.answer.total_s if lane.answer.failure is None else None for lane in race.lanes]
    known = [one for one in times if one]
    if race.ended_s is None or len(race.lanes) < 2 or not known:
        return [""] * len(race.lanes)
    best = min(known)
    if len(known) == len(times) and max(known) / best < EQUAL:
        return [say("equally fast")] * len(times)
    return [_verdict(one, best) for one in times]


def _verdict(took_s: float | None, best_s: float) -> str:
    if took_s is None:
        return say("failed")
    if took_s / best_s < EQUAL:
        return say("fastest")
    return say("{times} × slower", times=f"{took_s / best_s:.1f}")


def summary(race: Race) -> str:
    """One sentence, empty while it is not known."""
    if race.speed_up is None:
        return ""
    total = sum(lane.answer.total_s or 0.0 for lane in race.lanes)
    longest = max(lane.answer.total_s or 0.0 for lane in race.lanes)
    return say(
        "All {count} together took {longest} s; one after the other they would have taken {total} s ({times} × longer).",
        count=len(race.lanes),
        longest=f"{longest:.1f}",
        total=f"{total:.1f}",
        times=f"{race.speed_up:.1f}",
    )


def shown(lane: Lane, verdict: str) -> str:
    """Markdown: who, the answer, how fast."""
    thought, text = lane.answer.shown()
    ended = lane.answer.failure is not None or lane.answer.finish_reason is not None
    head = f"#### {plain(lane.model)}" + (f" · *{verdict}*" if verdict else "")
    folded = f"<details><summary>{say('Thinking')}</summary>\n\n{plain(thought)}\n\n</details>" if thought else ""
    last = note(lane.answer) if ended else ""
    return "\n\n".join(part for part in (head, folded, text or ("" if ended else "…"), last) if part)


def as_dict(race: Race, question: str) -> dict[str, Any]:
    """For export, and for programs."""
    return {
        "question": question,
        "speed_up": None if race.speed_up is None else round(race.speed_up, 2),
        "answers": [
            {"model": lane.model, "prompt": lane.text, "text": lane.answer.shown()[1], "verdict": verdict}
            | facts(lane.answer)
            for lane, verdict in zip(race.lanes, verdicts(race), strict=True)
        ],
    }
