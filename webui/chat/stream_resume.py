"""Asks until an answer is whole: where an engine dies in the middle, another one goes on from what has come."""

from __future__ import annotations

import asyncio
from typing import Protocol

from webui.chat.chat_request import Question, continued
from webui.chat.streamed_answer import Answer

MOST = 3
"""Engines that may die of one answer; a question that kills engines must not kill them all."""
PAUSE_S = 1.0
"""Before the rest is asked for: the gateway needs about a second to notice."""


class Asks(Protocol):
    async def ask(self, question: Question, answer: Answer) -> None: ...


async def ask(asks: Asks, question: Question, answer: Answer) -> None:
    """Fills `answer`; a failure is put there too, never raised."""
    await asks.ask(question, answer)
    for nth in range(MOST - 1):
        rest = _rest(question, answer)
        if rest is None:
            return
        failure = answer.failure
        answer.go_on()
        await asyncio.sleep(PAUSE_S * nth)
        came = len(answer.text)
        await asks.ask(rest, answer)
        if answer.failure is not None and len(answer.text) == came:
            answer.failure = failure  # "the answer was cut" tells more than what the second engine said
            answer.changes.pop()


def _rest(question: Question, answer: Answer) -> Question | None:
    """What to ask for next; None when the answer is whole, or cannot go on."""
    if answer.failure is None or not answer.failure.cut:
        return None
    if not answer.text:  # only thinking came: it is thought again
        answer.thought = ""
        return question if answer.chunks else None
    return continued(question, answer.text, answer.before + answer.chunks)
