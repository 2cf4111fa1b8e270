"""A question to one endpoint and, where that fails, to the next; every attempt is kept with its error and its time."""

from __future__ import annotations

import asyncio
import html
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from webui.chat.completion_stream import ChatRequest
from webui.chat.streamed_answer import StreamedAnswer, answer_facts, answer_summary, format_seconds
from webui.cluster import endpoint_client
from webui.cluster.endpoint_client import UNREACHABLE_URL, EndpointAddress
from webui.i18n.translations import N_, _

FALLBACK_UPDATE_S = 0.15

PRIMARY_AS_IT_IS = N_("Primary as it is")
PRIMARY_WRONG_ADDRESS = N_("Primary with a wrong address")
THROUGH_GATEWAY = N_("Through the gateway")
FALLBACK_MODES = (PRIMARY_AS_IT_IS, PRIMARY_WRONG_ADDRESS, THROUGH_GATEWAY)


@dataclass
class FallbackAttempt:
    address: EndpointAddress
    answer: StreamedAnswer = field(default_factory=lambda: StreamedAnswer(started_s=time.monotonic()))
    started_s: float = field(default_factory=time.monotonic)
    ended_s: float | None = None

    @property
    def elapsed_s(self) -> float | None:
        return None if self.ended_s is None else self.ended_s - self.started_s


def plan_attempts(
    mode: str, primary: EndpointAddress, fallback: EndpointAddress, gateway: EndpointAddress
) -> list[EndpointAddress]:
    """Whom to ask, one after the other. The gateway falls back by itself."""
    match mode:
        case "Primary with a wrong address":
            return [
                EndpointAddress(_("{name} (wrong address)", name=_(primary.name)), UNREACHABLE_URL, primary.model),
                fallback,
            ]
        case "Through the gateway":
            return [EndpointAddress(gateway.name, gateway.base_url, primary.model or gateway.model, gateway.key)]
    return [primary, fallback]


async def run_fallback(
    addresses: list[EndpointAddress], question: ChatRequest, headers: dict[str, dict[str, Any]]
) -> AsyncIterator[list[FallbackAttempt]]:
    """Yields all attempts so far, again and again while an answer comes. `headers`: by base_url."""
    attempts: list[FallbackAttempt] = []
    for address in addresses:
        attempt = FallbackAttempt(address)
        attempts.append(attempt)
        own = headers.get(address.base_url, {})
        asking = asyncio.create_task(endpoint_client.stream_from_endpoint(address, question, attempt.answer, own))
        try:
            while not asking.done():
                await asyncio.wait({asking}, timeout=FALLBACK_UPDATE_S)
                yield attempts
        finally:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            attempt.ended_s = time.monotonic()
        yield attempts
        if attempt.answer.failure is None:
            return


def fallback_facts(attempts: list[FallbackAttempt]) -> dict[str, Any]:
    """For programs: who was asked, and who answered at last."""
    last = attempts[-1]
    return {
        "answered_by": None if last.answer.failure else last.address.name,
        "text": last.answer.rendered()[1],
        "attempts": [
            {
                "endpoint": attempt.address.name,
                "base_url": attempt.address.base_url,
                "model": attempt.address.model,
                "took_s": None if attempt.elapsed_s is None else round(attempt.elapsed_s, 3),
            }
            | answer_facts(attempt.answer)
            for attempt in attempts
        ],
    }


def attempts_html(attempts: list[FallbackAttempt]) -> str:
    """HTML: an attempt a row, with its error or who answered."""
    return f'<ol class="attempts">{"".join(_attempt_html(number, attempt) for number, attempt in enumerate(attempts, 1))}</ol>'


def _attempt_html(number: int, attempt: FallbackAttempt) -> str:
    failure = attempt.answer.failure
    state, word = (
        ("failed", _("failed"))
        if failure
        else ("waits", _("asking"))
        if attempt.ended_s is None
        else ("done", _("answered"))
    )
    took = "" if attempt.elapsed_s is None else _(" after {time}", time=format_seconds(attempt.elapsed_s))
    outcome = str(failure) if failure else answer_summary(attempt.answer)
    model = attempt.address.model or _("no model")
    where = f"{html.escape(attempt.address.base_url)} · {html.escape(model)}"
    return (
        f'<li class="{state}"><b>{number}. {html.escape(_(attempt.address.name))}</b> <em>{word}{took}</em>'
        f"<span>{where}</span><p>{html.escape(outcome)}</p></li>"
    )
