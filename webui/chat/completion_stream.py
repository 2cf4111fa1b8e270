"""Asks one OpenAI-compatible endpoint for one answer, and fills it in while it comes."""

from __future__ import annotations

import time
from typing import Any

from openai import AsyncOpenAI

from webui.chat.chat_request import Question, body
from webui.chat.streamed_answer import Answer, Served

TYPED = ("model", "messages", "stream")


async def ask(client: AsyncOpenAI, question: Question, answer: Answer, headers: dict[str, Any]) -> None:
    """Streams into `answer`. Raises what the client raises."""
    whole = body(question)
    messages: Any = question.messages  # video_url is vLLM's own and not in OpenAI's types
    raw = await client.chat.completions.with_raw_response.create(
        model=question.model,
        messages=messages,
        stream=True,
        extra_body={name: value for name, value in whole.items() if name not in TYPED},
        extra_headers=headers,
    )
    answer.served = Served.from_headers(raw.headers)
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
                if thought := more.get("reasoning") or more.get("reasoning_content"):
                    answer.think(str(thought), now)
                elif choice.delta.content is not None and (choice.delta.content or choice.delta.role is None):
                    answer.add(choice.delta.content, now)
                answer.finish_reason = choice.finish_reason or answer.finish_reason
