"""Several questions at once, each to its own model, and which of them was how fast."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from webui.chat.chat_requester import ChatRequester
from webui.chat.sampling_settings import SamplingSettings
from webui.chat.streamed_answer import StreamedAnswer, answer_facts, answer_note, escape_markdown
from webui.i18n.translations import N_, _, ngettext

COMPARISON_UPDATE_S = 0.15
EQUAL_SPEED_FACTOR = 1.05
"""Less than so much slower is as fast."""


@dataclass
class ModelRun:
    """One question to one model."""

    text: str
    files: list[str]
    knobs: SamplingSettings
    answer: StreamedAnswer = field(default_factory=lambda: StreamedAnswer(asked_s=time.monotonic()))

    @property
    def model(self) -> str:
        return self.knobs.model or _("no model")


@dataclass
class Comparison:
    lanes: list[ModelRun]
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


async def run_comparison(race: Comparison, asker: ChatRequester, visit: str, key: str) -> AsyncIterator[None]:
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
            _, left = await asyncio.wait(left, timeout=COMPARISON_UPDATE_S)
            yield
    finally:
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
        race.ended_s = time.monotonic()


def speed_verdicts(race: Comparison) -> list[str]:
    """A few words for each lane: fastest, or how much slower; empty while it is not known."""
    times = [lane.answer.total_s if lane.answer.failure is None else None for lane in race.lanes]
    known = [one for one in times if one]
    if race.ended_s is None or len(race.lanes) < 2 or not known:
        return [""] * len(race.lanes)
    best = min(known)
    if len(known) == len(times) and max(known) / best < EQUAL_SPEED_FACTOR:
        return [_("equally fast")] * len(times)
    return [_speed_verdict(one, best) for one in times]


def _speed_verdict(took_s: float | None, best_s: float) -> str:
    if took_s is None:
        return _("failed")
    if took_s / best_s < EQUAL_SPEED_FACTOR:
        return _("fastest")
    return _("{times} × slower", times=f"{took_s / best_s:.1f}")


def comparison_summary(race: Comparison) -> str:
    """One sentence, empty while it is not known."""
    if race.speed_up is None:
        return ""
    total = sum(lane.answer.total_s or 0.0 for lane in race.lanes)
    longest = max(lane.answer.total_s or 0.0 for lane in race.lanes)
    return _(
        "All {count} together took {longest} s; one after the other they would have taken {total} s ({times} × longer).",
        count=len(race.lanes),
        longest=f"{longest:.1f}",
        total=f"{total:.1f}",
        times=f"{race.speed_up:.1f}",
    )


def run_markdown(lane: ModelRun, verdict: str) -> str:
    """Markdown: who, the answer, how fast."""
    thought, text = lane.answer.shown()
    ended = lane.answer.failure is not None or lane.answer.finish_reason is not None
    head = f"#### {escape_markdown(lane.model)}" + (f" · *{verdict}*" if verdict else "")
    title = _("Thinking")
    folded = f"<details><summary>{title}</summary>\n\n{escape_markdown(thought)}\n\n</details>" if thought else ""
    last = answer_note(lane.answer) if ended else ""
    return "\n\n".join(part for part in (head, folded, text or ("" if ended else "…"), last) if part)


def comparison_facts(race: Comparison, question: str) -> dict[str, Any]:
    """For export, and for programs."""
    return {
        "question": question,
        "speed_up": None if race.speed_up is None else round(race.speed_up, 2),
        "answers": [
            {"model": lane.model, "prompt": lane.text, "text": lane.answer.shown()[1], "verdict": verdict}
            | answer_facts(lane.answer)
            for lane, verdict in zip(race.lanes, speed_verdicts(race), strict=True)
        ],
    }


MAX_SAVED_COMPARISONS = 100
EQUALLY_GOOD = N_("equally good")

SavedComparison = dict[str, Any]
"""As side_by_side.as_dict makes it, and "vote"."""


def add_comparison(kept: object, comparison: SavedComparison) -> list[SavedComparison]:
    """Newest first, the oldest forgotten."""
    return [comparison | {"vote": None}, *valid_comparisons(kept)][:MAX_SAVED_COMPARISONS]


def add_vote(kept: object, vote: str) -> list[SavedComparison]:
    """The newest comparison with its vote."""
    found = valid_comparisons(kept)
    if not found:
        return []
    return [found[0] | {"vote": vote}, *found[1:]]


def tally_votes(kept: object) -> str:
    """For example: 3 votes: qwen3-vl-8b 2, equally good 1."""
    counts = Counter(str(one["vote"]) for one in valid_comparisons(kept) if one.get("vote"))
    if not counts:
        return ""
    total = sum(counts.values())
    words = ", ".join(f"{_(name)} {count}" for name, count in counts.most_common())
    votes = ngettext("{count} vote", "{count} votes", total)
    return f"{votes}: {words}"


def comparisons_json(kept: object) -> str:
    return json.dumps({"comparisons": valid_comparisons(kept)}, ensure_ascii=False, indent=1)


def comparisons_csv(kept: object) -> str:
    """A row an answer."""
    out = io.StringIO()
    writer = csv.writer(out)
    columns = (
        "model",
        "engine",
        "first_token_ms",
        "total_s",
        "tokens_per_s",
        "tokens_in",
        "tokens_out",
        "error",
        "text",
    )
    writer.writerow(["comparison", "question", "vote", "speed_up", "verdict", *columns])
    for number, one in enumerate(valid_comparisons(kept), 1):
        for answer in one["answers"]:
            row = [number, one.get("question"), one.get("vote"), one.get("speed_up"), answer.get("verdict")]
            writer.writerow([_safe(cell) for cell in (*row, *(answer.get(column) for column in columns))])
    return out.getvalue()


def valid_comparisons(kept: object) -> list[SavedComparison]:
    """What is well formed of what a browser sent."""
    if not isinstance(kept, list):
        return []
    return [
        one
        for one in kept
        if isinstance(one, dict)
        and isinstance(one.get("answers"), list)
        and all(isinstance(answer, dict) for answer in one["answers"])
    ]


def _safe(cell: Any) -> Any:
    """Sheets run what begins like a formula."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(("=", "+", "-", "@", "\t", "\r")) else cell
