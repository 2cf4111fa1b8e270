"""A chat completion request, as one prompt and its pictures. Pure.

A request of one user turn is its text, after the system messages' where there are any. Several turns are written one after the
other, each after its speaker, and the last line is where the assistant goes on:

    You answer briefly.

    User: What is this?

    Assistant: A cat.

    User: Which colour?

    Assistant:
"""

from dataclasses import dataclass
from typing import Any

from manyeyes.openai_adapter.errors import Refusal

INSTRUCTING = ("system", "developer")
SPEAKERS = {"user": "User", "assistant": "Assistant", "tool": "Tool", "function": "Tool"}


@dataclass(frozen=True)
class Question:
    """What a request asks for."""

    model: str
    prompt: str
    pictures: tuple[str, ...]
    """Their URLs, `data:` ones too, in the order of the turns."""
    temperature: float | None
    max_tokens: int | None
    stream: bool
    include_usage: bool
    """Whether a stream ends with its usage."""


def read(body: Any) -> Question:
    """Raises Refusal 400."""
    if not isinstance(body, dict):
        raise _wrong("The request body must be a JSON object.")
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise _wrong("messages must be a list of at least one message.")
    if body.get("n") not in (None, 1):
        raise _wrong("n must be 1: this model gives one answer at a time.")
    if body.get("tools") or body.get("functions"):
        raise _wrong("This model calls no tools.")
    turns = [_turn(message) for message in messages]
    options = body.get("stream_options")
    return Question(
        model=body["model"] if isinstance(body.get("model"), str) else "",
        prompt=_fold([(role, text) for role, text, _ in turns]),
        pictures=tuple(url for _, _, pictures in turns for url in pictures),
        temperature=_number(body, "temperature"),
        max_tokens=_count(body, "max_completion_tokens") or _count(body, "max_tokens"),
        stream=body.get("stream") is True,
        include_usage=isinstance(options, dict) and options.get("include_usage") is True,
    )


def _fold(turns: list[tuple[str, str]]) -> str:
    instructions = [text for role, text in turns if role in INSTRUCTING and text]
    spoken = [(role, text) for role, text in turns if role not in INSTRUCTING]
    if len(spoken) == 1 and spoken[0][0] == "user":
        return "\n\n".join([*instructions, spoken[0][1]])
    lines = [f"{SPEAKERS[role]}: {text}" for role, text in spoken]
    return "\n\n".join([*instructions, *lines, "Assistant:"])


def _turn(message: Any) -> tuple[str, str, list[str]]:
    """(role, text, pictures)."""
    role = message.get("role") if isinstance(message, dict) else None
    if role not in (*INSTRUCTING, *SPEAKERS):
        raise _wrong(f"Every message wants a role out of {', '.join((*INSTRUCTING, *SPEAKERS))}.")
    content = message.get("content")
    if content is None:
        return role, "", []
    if isinstance(content, str):
        return role, content, []
    if not isinstance(content, list):
        raise _wrong("The content of a message must be text or a list of parts.")
    texts, pictures = [], []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "text" and isinstance(part.get("text"), str):
            texts.append(part["text"])
        elif kind == "image_url":
            picture = part.get("image_url")
            url = picture.get("url") if isinstance(picture, dict) else picture
            if not isinstance(url, str):
                raise _wrong("An image_url part wants a url.")
            pictures.append(url)
        else:
            raise _wrong(f"This model takes text and pictures, not '{str(kind)[:40]}'.")
    return role, "\n".join(texts), pictures


def _number(body: dict[str, Any], key: str) -> float | None:
    value = body.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _wrong(f"{key} must be a number.")
    return value


def _count(body: dict[str, Any], key: str) -> int | None:
    value = body.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise _wrong(f"{key} must be a whole number of at least 1.")
    return value


def _wrong(message: str) -> Refusal:
    return Refusal(400, "invalid_request", message)
