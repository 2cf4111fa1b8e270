"""A question to one endpoint and, where that fails, to the next; every attempt is kept with its error and its time."""

from __future__ import annotations

import asyncio
import html
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from webui.chat.chat_request import Question
from webui.chat.streamed_answer import Answer, facts, line, ms
from webui.cluster import endpoint_client
from webui.cluster.endpoint_client import NOWHERE, Address
from webui.i18n.language import later, say

TELL_S = 0.15

AS_IT_IS = later("Primary as it is")
WRONG = later("Primary with a wrong address")
GATEWAY = later("Through the gateway")
WAYS = (AS_IT_IS, WRONG, GATEWAY)


@dataclass
class Attempt:
    address: Address
    answer: Answer = field(default_factory=lambda: Answer(asked_s=time.monotonic()))
    begun_s: float = field(default_factory=time.monotonic)
    ended_s: float | None = None

    @property
    def took_s(self) -> float | None:
        return None if self.ended_s is None else self.ended_s - self.begun_s


def plan(way: str, primary: Address, fallback: Address, gateway: Address) -> list[Address]:
    """Whom to ask, one after the other. The gateway falls back by itself."""
    match way:
        case "Primary with a wrong address":
            return [Address(say("{name} (wrong address)", name=say(primary.name)), NOWHERE, primary.model), fallback]
        case "Through the gateway":
            return [Address(gateway.name, gateway.base_url, primary.model or gateway.model, gateway.key)]
    return [primary, fallback]


async def run(
    addresses: list[Address], question: Question, headers: dict[str, dict[str, Any]]
) -> AsyncIterator[list[Attempt]]:
    """Yields all attempts so far, again and again while an answer comes. `headers`: by base_url."""
    attempts: list[Attempt] = []
    for address in addresses:
        attempt = Attempt(address)
        attempts.append(attempt)
        own = headers.get(address.base_url, {})
        asking = asyncio.create_task(endpoint_client.ask(address, question, attempt.answer, own))
        try:
            while not asking.done():
                await asyncio.wait({asking}, timeout=TELL_S)
                yield attempts
        finally:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            attempt.ended_s = time.monotonic()
        yield attempts
        if attempt.answer.failure is None:
            return


def as_dict(attempts: list[Attempt]) -> dict[str, Any]:
    """For programs: who was asked, and who answered at last."""
    last = attempts[-1]
    return {
        "answered_by": None if last.answer.failure else last.address.name,
        "text": last.answer.shown()[1],
        "attempts": [
            {
                "endpoint": one.address.name,
                "base_url": one.address.base_url,
                "model": one.address.model,
                "took_s": None if one.took_s is None else round(one.took_s, 3),
            }
            | facts(one.answer)
            for one in attempts
        ],
    }


def table(attempts: list[Attempt]) -> str:
    """HTML: an attempt a row, with its error or who answered."""
    return f'<ol class="attempts">{"".join(_row(number, one) for number, one in enumerate(attempts, 1))}</ol>'


def _row(number: int, one: Attempt) -> str:
    failure = one.answer.failure
    state, word = (
        ("failed", say("failed"))
        if failure
        else ("waits", say("asking"))
        if one.ended_s is None
        else ("done", say("answered"))
    )
    took = "" if one.took_s is None else say(" after {time}", time=ms(one.took_s))
    said = str(failure) if failure else line(one.answer)
    where = f"{html.escape(one.address.base_url)} · {html.escape(one.address.model or say('no model'))}"
    return (
        f'<li class="{state}"><b>{number}. {html.escape(say(one.address.name))}</b> <em>{word}{took}</em>'
        f"<span>{where}</span><p>{html.escape(said)}</p></li>"
    )
