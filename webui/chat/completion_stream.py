"""Asks one OpenAI-compatible endpoint for one answer, and fills it in while it comes."""

import asyncio
import time
from dataclasses import dataclass, replace
from typing import Any, Protocol

import openai
from openai import AsyncOpenAI

from webui.chat.streamed_answer import ServedBy, StreamedAnswer


@dataclass(frozen=True)
class Visitor:
    page: str = ""
    """One opened page or one call of a program, not a person: the gateway tells conversations apart by it."""
    key: str = ""
    """The name of the key that the person logged in with."""


@dataclass(frozen=True)
class ChatRequest:
    """`page` and `key` are its visitor's."""

    model: str
    messages: list[dict[str, Any]]
    page: str
    temperature: float
    top_p: float
    max_tokens: int
    key: str = ""
    seed: int | None = None
    response_format: dict[str, Any] | None = None
    continues: bool = False
    """The last message is an answer that broke off; the engine goes on where it ends."""


def request_body(request: ChatRequest) -> dict[str, Any]:
    found: dict[str, Any] = {
        "model": request.model,
        "messages": request.messages,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "max_tokens": request.max_tokens,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if request.seed is not None:
        found["seed"] = request.seed
    if request.response_format is not None:
        found["response_format"] = request.response_format
    if request.continues:  # vLLM's own: the template leaves the last message open
        found |= {"continue_final_message": True, "add_generation_prompt": False}
    return found


def continuation_request(request: ChatRequest, text: str, tokens: int) -> ChatRequest | None:
    """Asks for the rest of an answer of which `text` has come in `tokens` tokens; None where nothing may follow."""
    left = request.max_tokens - tokens
    if left < 1:
        return None
    messages = request.messages[:-1] if request.continues else request.messages
    last = {"role": "assistant", "content": text}
    # Under another page, because the gateway gives a conversation it knows to the engine that has just failed.
    page = f"{request.page}-goes-on"
    return replace(request, messages=[*messages, last], max_tokens=left, continues=True, page=page)


COMPLETION_TIMEOUT = openai.Timeout(600, connect=5)
"""A queued question about a long video may wait minutes for its first byte."""
CLIENT_FIELDS = ("model", "messages", "stream")


async def stream_completion(
    client: AsyncOpenAI, request: ChatRequest, answer: StreamedAnswer, headers: dict[str, Any]
) -> None:
    """Streams into `answer`. Raises what the client raises."""
    whole = request_body(request)
    messages: Any = request.messages  # video_url is vLLM's own and not in OpenAI's types
    try:
        raw = await client.chat.completions.with_raw_response.create(
            model=request.model,
            messages=messages,
            stream=True,
            extra_body={name: value for name, value in whole.items() if name not in CLIENT_FIELDS},
            extra_headers=headers,
        )
    except openai.APIStatusError as error:
        answer.served = ServedBy.from_headers(error.response.headers)
        raise
    answer.served = ServedBy.from_headers(raw.headers)
    async with raw.parse() as stream:
        async for chunk in stream:
            if chunk.usage is not None:
                details = chunk.usage.prompt_tokens_details
                answer.count(
                    chunk.usage.prompt_tokens,
                    chunk.usage.completion_tokens,
                    details.cached_tokens if details else None,
                )
            for choice in chunk.choices:
                now = time.monotonic()
                # vLLM before 0.11 and other engines call it reasoning_content.
                more = choice.delta.model_extra or {}
                if reasoning := more.get("reasoning") or more.get("reasoning_content"):
                    answer.think(str(reasoning), now)
                elif choice.delta.content is not None and (choice.delta.content or choice.delta.role is None):
                    answer.add(choice.delta.content, now)
                answer.finish_reason = choice.finish_reason or answer.finish_reason


MAX_ENGINES = 3
"""Engines that may die of one answer; a question that kills engines must not kill them all."""
RESUME_PAUSE_S = 1.0
"""Before the rest is asked for: the gateway needs about a second to notice."""


class CompletionBackend(Protocol):
    async def ask(self, request: ChatRequest, answer: StreamedAnswer) -> None: ...


async def stream_with_resume(backend: CompletionBackend, request: ChatRequest, answer: StreamedAnswer) -> None:
    """Fills `answer`; a failure is put there too, never raised."""
    await backend.ask(request, answer)
    for nth in range(MAX_ENGINES - 1):
        rest = _remaining_request(request, answer)
        if rest is None:
            return
        failure = answer.failure
        answer.switch_engine()
        await asyncio.sleep(RESUME_PAUSE_S * nth)
        came = len(answer.text)
        await backend.ask(rest, answer)
        if answer.failure is not None and len(answer.text) == came:
            answer.failure = failure  # "the answer was cut" tells more than what the second engine said
            answer.switches.pop()


def _remaining_request(request: ChatRequest, answer: StreamedAnswer) -> ChatRequest | None:
    """What to ask for next; None when the answer is whole, or cannot go on."""
    if answer.failure is None or not answer.failure.interrupted:
        return None
    if not answer.text:  # only thinking came: it is thought again
        answer.reasoning = ""
        return request if answer.chunks else None
    return continuation_request(request, answer.text, answer.earlier_tokens + answer.chunks)
