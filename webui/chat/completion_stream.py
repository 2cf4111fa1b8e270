"""Streams an answer from an OpenAI-compatible endpoint. If an engine fails mid-stream, another engine continues it."""

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
    """Id of an opened page or of a program's call. The gateway distinguishes conversations by it."""
    key: str = ""
    """Name of the API key that the user logged in with."""


@dataclass(frozen=True)
class ChatRequest:
    """A chat completion request. `page` and `key` are those of its `Visitor`."""

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
    """The last message is an unfinished answer, which the engine continues."""


def request_body(request: ChatRequest) -> dict[str, Any]:
    body: dict[str, Any] = {
        "model": request.model,
        "messages": request.messages,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "max_tokens": request.max_tokens,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if request.seed is not None:
        body["seed"] = request.seed
    if request.response_format is not None:
        body["response_format"] = request.response_format
    if request.continues:  # options of vLLM: the chat template leaves the last message open
        body |= {"continue_final_message": True, "add_generation_prompt": False}
    return body


def continuation_request(request: ChatRequest, text: str, tokens: int) -> ChatRequest | None:
    """Returns the request for the rest of an answer after `text` (`tokens` tokens); None if no token is left."""
    remaining = request.max_tokens - tokens
    if remaining < 1:
        return None
    messages = request.messages[:-1] if request.continues else request.messages
    last = {"role": "assistant", "content": text}
    # With another page id, because session affinity would send a known conversation to the failed engine.
    page = f"{request.page}-goes-on"
    return replace(request, messages=[*messages, last], max_tokens=remaining, continues=True, page=page)


COMPLETION_TIMEOUT = openai.Timeout(600, connect=5)
"""A queued question about a long video may wait minutes for its first byte."""
CLIENT_FIELDS = ("model", "messages", "stream")


async def stream_completion(
    client: AsyncOpenAI, request: ChatRequest, answer: StreamedAnswer, headers: dict[str, Any]
) -> None:
    """Streams the response into `answer`. Raises the errors of the OpenAI client."""
    whole = request_body(request)
    messages: Any = request.messages  # video_url is an extension of vLLM and not in OpenAI's types
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
"""Maximum number of engines for one answer. A request that crashes engines must not crash all of them."""
RESUME_PAUSE_S = 1.0
"""Pause before the second resume. The gateway needs about a second to detect a failed engine."""


class CompletionBackend(Protocol):
    async def stream(self, request: ChatRequest, answer: StreamedAnswer) -> None: ...


async def stream_with_resume(backend: CompletionBackend, request: ChatRequest, answer: StreamedAnswer) -> None:
    """Fills `answer` and resumes it on other engines. Failures are stored in `answer`, not raised."""
    await backend.stream(request, answer)
    for nth in range(MAX_ENGINES - 1):
        rest = _remaining_request(request, answer)
        if rest is None:
            return
        failure = answer.failure
        answer.switch_engine()
        await asyncio.sleep(RESUME_PAUSE_S * nth)
        received = len(answer.text)
        await backend.stream(rest, answer)
        if answer.failure is not None and len(answer.text) == received:
            answer.failure = failure  # "the answer was cut off" explains more than the error of the second engine
            answer.switches.pop()


def _remaining_request(request: ChatRequest, answer: StreamedAnswer) -> ChatRequest | None:
    """Returns the request that continues the answer; None if it is complete or cannot be continued."""
    if answer.failure is None or not answer.failure.interrupted:
        return None
    if not answer.text:  # only reasoning arrived, so it is generated again
        answer.reasoning = ""
        return request if answer.chunks else None
    return continuation_request(request, answer.text, answer.earlier_tokens + answer.chunks)
