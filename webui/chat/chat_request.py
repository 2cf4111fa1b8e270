"""What goes to `POST /v1/chat/completions`, as one value: the page sends it and shows its code from the same body."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Question:
    """`page` is one opened page, not a person; `key` the name of its visitor's key."""

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


def body(question: Question) -> dict[str, Any]:
    """The request's body."""
    found: dict[str, Any] = {
        "model": question.model,
        "messages": question.messages,
        "temperature": question.temperature,
        "top_p": question.top_p,
        "max_tokens": question.max_tokens,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if question.seed is not None:
        found["seed"] = question.seed
    if question.response_format is not None:
        found["response_format"] = question.response_format
    if question.continues:  # vLLM's own: the template leaves the last message open
        found |= {"continue_final_message": True, "add_generation_prompt": False}
    return found


def continued(question: Question, text: str, tokens: int) -> Question | None:
    """Asks for the rest of an answer of which `text` has come in `tokens` tokens; None where nothing may follow."""
    left = question.max_tokens - tokens
    if left < 1:
        return None
    messages = question.messages[:-1] if question.continues else question.messages
    last = {"role": "assistant", "content": text}
    # Under another page, because the gateway gives a conversation it knows to the engine that has just failed.
    page = f"{question.page}-goes-on"
    return replace(question, messages=[*messages, last], max_tokens=left, continues=True, page=page)
