"""Runs questions on several models in parallel and compares their speed."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from typing import Any

from webui.chat.chat_requester import ChatRequester, SamplingSettings
from webui.chat.completion_stream import Visitor
from webui.chat.streamed_answer import StreamedAnswer, answer_facts, answer_note, escape_markdown
from webui.files.batch_report import csv_text
from webui.i18n import N_, _, ngettext

COMPARISON_UPDATE_S = 0.15
EQUAL_SPEED_FACTOR = 1.05
"""Answers that are slower by less than this factor count as equally fast."""


@dataclass
class ModelRun:
    text: str
    files: list[str]
    sampling: SamplingSettings
    answer: StreamedAnswer = field(default_factory=lambda: StreamedAnswer(started_s=time.monotonic()))

    @property
    def model(self) -> str:
        return self.sampling.model or _("no model")


@dataclass
class Comparison:
    runs: list[ModelRun]
    ended_s: float | None = None

    @property
    def speed_up(self) -> float | None:
        """How many times longer the runs would take one after the other."""
        times = [run.answer.total_s or 0.0 for run in self.runs]
        if self.ended_s is None or len(times) < 2 or not all(times):
            return None
        return sum(times) / max(times)

    async def run(self, requester: ChatRequester, by: Visitor) -> AsyncIterator[None]:
        """Starts all runs in parallel and yields while the answers stream."""
        tasks = [
            asyncio.create_task(
                requester.send(run.text, run.files, run.sampling, replace(by, page=f"{by.page}-{nth}"), run.answer)
            )
            for nth, run in enumerate(self.runs)
        ]
        try:
            pending: set[asyncio.Task[None]] = set(tasks)
            while pending:
                _, pending = await asyncio.wait(pending, timeout=COMPARISON_UPDATE_S)
                yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self.ended_s = time.monotonic()

    def verdicts(self) -> list[str]:
        """Returns a short verdict for each run: fastest, or how much slower; empty until it is known."""
        times = [run.answer.total_s if run.answer.failure is None else None for run in self.runs]
        known = [total_s for total_s in times if total_s]
        if self.ended_s is None or len(self.runs) < 2 or not known:
            return [""] * len(self.runs)
        best = min(known)
        if len(known) == len(times) and max(known) / best < EQUAL_SPEED_FACTOR:
            return [_("equally fast")] * len(times)
        return [_speed_verdict(total_s, best) for total_s in times]

    def summary(self) -> str:
        """Returns a summary in one sentence; empty until it is known."""
        if self.speed_up is None:
            return ""
        times = [run.answer.total_s or 0.0 for run in self.runs]
        return _(
            "All {count} together took {longest} s; one after the other they would have taken {total} s ({times} × longer).",
            count=len(self.runs),
            longest=f"{max(times):.1f}",
            total=f"{sum(times):.1f}",
            times=f"{self.speed_up:.1f}",
        )

    def facts(self, question: str) -> dict[str, Any]:
        return {
            "question": question,
            "speed_up": None if self.speed_up is None else round(self.speed_up, 2),
            "answers": [
                {"model": run.model, "prompt": run.text, "text": run.answer.rendered()[1], "verdict": verdict}
                | answer_facts(run.answer)
                for run, verdict in zip(self.runs, self.verdicts(), strict=True)
            ],
        }


def _speed_verdict(elapsed_s: float | None, best_s: float) -> str:
    if elapsed_s is None:
        return _("failed")
    if elapsed_s / best_s < EQUAL_SPEED_FACTOR:
        return _("fastest")
    return _("{times} × slower", times=f"{elapsed_s / best_s:.1f}")


def run_markdown(run: ModelRun, verdict: str) -> str:
    """Returns Markdown with the model, the answer and the summary line."""
    reasoning, text = run.answer.rendered()
    ended = run.answer.failure is not None or run.answer.finish_reason is not None
    head = f"#### {escape_markdown(run.model)}" + (f" · *{verdict}*" if verdict else "")
    title = _("Thinking")
    folded = f"<details><summary>{title}</summary>\n\n{escape_markdown(reasoning)}\n\n</details>" if reasoning else ""
    last = answer_note(run.answer) if ended else ""
    return "\n\n".join(part for part in (head, folded, text or ("" if ended else "…"), last) if part)


MAX_SAVED_COMPARISONS = 100
EQUALLY_GOOD = N_("equally good")

SavedComparison = dict[str, Any]
"""The result of Comparison.facts, and "vote"."""


def add_comparison(stored: object, comparison: SavedComparison) -> list[SavedComparison]:
    """Adds a comparison at the front and drops the oldest."""
    return [comparison | {"vote": None}, *valid_comparisons(stored)][:MAX_SAVED_COMPARISONS]


def add_vote(stored: object, vote: str) -> list[SavedComparison]:
    """Stores the vote in the newest comparison."""
    comparisons = valid_comparisons(stored)
    if not comparisons:
        return []
    return [comparisons[0] | {"vote": vote}, *comparisons[1:]]


def tally_votes(stored: object) -> str:
    """Returns the number of votes, for example: 3 votes: qwen3-vl-8b 2, equally good 1."""
    counts = Counter(str(comparison["vote"]) for comparison in valid_comparisons(stored) if comparison.get("vote"))
    if not counts:
        return ""
    total = sum(counts.values())
    counts_text = ", ".join(f"{_(name)} {count}" for name, count in counts.most_common())
    votes = ngettext("{count} vote", "{count} votes", total)
    return f"{votes}: {counts_text}"


def comparisons_json(stored: object) -> str:
    return json.dumps({"comparisons": valid_comparisons(stored)}, ensure_ascii=False, indent=1)


COMPARISON_COLUMNS = ("question", "vote", "speed_up")
SPEED_COLUMNS = ("first_token_ms", "total_s", "tokens_per_s", "tokens_in", "tokens_out")
ANSWER_COLUMNS = ("verdict", "model", "engine", *SPEED_COLUMNS, "error", "text")


def comparisons_csv(stored: object) -> str:
    rows = [
        [
            number,
            *(comparison.get(column) for column in COMPARISON_COLUMNS),
            *(answer.get(column) for column in ANSWER_COLUMNS),
        ]
        for number, comparison in enumerate(valid_comparisons(stored), 1)
        for answer in comparison["answers"]
    ]
    return csv_text(["comparison", *COMPARISON_COLUMNS, *ANSWER_COLUMNS], rows)


def valid_comparisons(stored: object) -> list[SavedComparison]:
    """Returns the well-formed comparisons that the browser sent."""
    if not isinstance(stored, list):
        return []
    return [
        comparison
        for comparison in stored
        if isinstance(comparison, dict)
        and isinstance(comparison.get("answers"), list)
        and all(isinstance(answer, dict) for answer in comparison["answers"])
    ]
