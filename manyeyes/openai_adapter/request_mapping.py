"""Converts a chat completion request to one prompt with images, and fills the endpoint's request template with them.
Pure.

The prompt of a single user turn is its text, after the text of system messages. Several turns are written one after the
other, each after the name of its speaker, and the last line is for the assistant's answer:

    You answer briefly.

    User: What is this?

    Assistant: A cat.

    User: Which colour?

    Assistant:
"""

from dataclasses import dataclass
from typing import Any

from manyeyes.config.custom_endpoint import PLACEHOLDER, WHOLE_VALUE_PLACEHOLDERS, Endpoint
from manyeyes.openai_error import ApiError

INSTRUCTING = ("system", "developer")
SPEAKERS = {"user": "User", "assistant": "Assistant", "tool": "Tool", "function": "Tool"}


@dataclass(frozen=True)
class ChatRequest:
    """The supported content of a request."""

    model: str
    prompt: str
    images: tuple[str, ...]
    """URLs of images, including `data:` URLs, in the order of the turns."""
    temperature: float | None
    max_tokens: int | None
    stream: bool
    include_usage: bool
    """Whether a stream ends with the usage."""


def parse_chat_request(body: Any) -> ChatRequest:
    """Parses the body of a request. Raises ApiError 400."""
    if not isinstance(body, dict):
        raise _wrong("The request body must be a JSON object.")
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise _wrong("messages must be a list of at least one message.")
    if body.get("n") not in (None, 1):
        raise _wrong("n must be 1: this model gives one answer at a time.")
    if body.get("tools") or body.get("functions"):
        raise _wrong("This model does not support tools.")
    turns = [_turn(message) for message in messages]
    options = body.get("stream_options")
    return ChatRequest(
        model=body["model"] if isinstance(body.get("model"), str) else "",
        prompt=_fold([(role, text) for role, text, _ in turns]),
        images=tuple(url for _, _, images in turns for url in images),
        temperature=_number(body, "temperature"),
        max_tokens=_count(body, "max_completion_tokens") or _count(body, "max_tokens"),
        stream=body.get("stream") is True,
        include_usage=isinstance(options, dict) and options.get("include_usage") is True,
    )


def _fold(turns: list[tuple[str, str]]) -> str:
    instructions = [text for role, text in turns if role in INSTRUCTING and text]
    conversation = [(role, text) for role, text in turns if role not in INSTRUCTING]
    if len(conversation) == 1 and conversation[0][0] == "user":
        return "\n\n".join([*instructions, conversation[0][1]])
    lines = [f"{SPEAKERS[role]}: {text}" for role, text in conversation]
    return "\n\n".join([*instructions, *lines, "Assistant:"])


def _turn(message: Any) -> tuple[str, str, list[str]]:
    """(role, text, images) of a message."""
    role = message.get("role") if isinstance(message, dict) else None
    if role not in (*INSTRUCTING, *SPEAKERS):
        raise _wrong(f"Every message must have one of the roles {', '.join((*INSTRUCTING, *SPEAKERS))}.")
    content = message.get("content")
    if content is None:
        return role, "", []
    if isinstance(content, str):
        return role, content, []
    if not isinstance(content, list):
        raise _wrong("The content of a message must be text or a list of parts.")
    texts, images = [], []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "text" and isinstance(part.get("text"), str):
            texts.append(part["text"])
        elif kind == "image_url":
            image_url = part.get("image_url")
            url = image_url.get("url") if isinstance(image_url, dict) else image_url
            if not isinstance(url, str):
                raise _wrong("An image_url part must have a url.")
            images.append(url)
        else:
            raise _wrong(f"This model accepts text and images, not '{str(kind)[:40]}'.")
    return role, "\n".join(texts), images


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


def _wrong(message: str) -> ApiError:
    return ApiError(400, "invalid_request", message)


_OMITTED: Any = object()


def fill_template(endpoint: Endpoint, question: ChatRequest, model: str, stream: bool) -> Any:
    """The request body for the endpoint. Raises ApiError 400 if the template has no place for the images."""
    if question.images and not endpoint.accepts_images:
        raise ApiError(400, "no_pictures", "This model does not accept images.")
    values = {
        "USER_PROMPT": question.prompt,
        "MODEL_NAME": endpoint.model or model,
        "MODEL_TEMPERATURE": question.temperature,
        "MAX_TOKENS": question.max_tokens,
        "STREAM": stream,
    }
    return _fill(endpoint.template, values, list(question.images))


def _fill(node: Any, values: dict[str, Any], images: list[str]) -> Any:
    if isinstance(node, str):
        return _fill_text(node, values, images)
    if isinstance(node, dict):
        filled = {key: _fill(value, values, images) for key, value in node.items()}
        present = {key: value for key, value in filled.items() if value is not _OMITTED}
        return present if present or not node else _OMITTED
    if isinstance(node, list):
        items = []
        for item in node:
            for item_images in [[image] for image in images] if _is_for_each_image(item) else [images]:
                items.append(_fill(item, values, item_images))
        items = [item for item in items if item is not _OMITTED]
        return items if items or not node else _OMITTED
    return node


def _fill_text(text: str, values: dict[str, Any], images: list[str]) -> Any:
    names = set(PLACEHOLDER.findall(text))
    if names & WHOLE_VALUE_PLACEHOLDERS:
        value = values[names.pop()]
        return _OMITTED if value is None else value
    if "IMAGE_URL" in names:
        if len(images) > 1:
            raise ApiError(400, "too_many_pictures", "This model accepts one image per request.")
        if not images and "USER_PROMPT" not in names:
            return _OMITTED
    texts = values | {"IMAGE_URL": images[0] if images else ""}
    return PLACEHOLDER.sub(lambda match: str(texts[match[1]]), text)


def _is_for_each_image(item: Any) -> bool:
    return _holds(item, "{IMAGE_URL}", into_lists=False) and not _holds(item, "{USER_PROMPT}", into_lists=True)


def _holds(node: Any, placeholder: str, into_lists: bool) -> bool:
    if isinstance(node, str):
        return placeholder in node
    if isinstance(node, dict):
        return any(_holds(value, placeholder, into_lists) for value in node.values())
    if isinstance(node, list) and into_lists:
        return any(_holds(value, placeholder, into_lists) for value in node)
    return False
