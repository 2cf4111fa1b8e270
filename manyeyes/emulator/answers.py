"""The answer: canned, the same for the same request, and it says what it is; or in the form that was asked for (JSON after a
schema, boxes and points on a picture, an answer that continues where another one ended)."""

import json
from itertools import cycle, islice
from typing import Any
from zlib import crc32

from manyeyes.emulator.responses import invalid

OPENING = "This answer is emulated: no model looked at your {what}."
FILLERS = (
    "Only the time it took is meant to resemble that of a real engine.",
    "Start an engine with a real model to read a real answer here.",
    "Every word of it was written before you asked.",
    "Ask as often as you like: the same question gets the same words.",
    "The numbers of tokens are estimates from lengths and sizes.",
)


def plural(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def describe_request(images: int, videos: int) -> str:
    """What the question was about: its picture, pictures, video or, without any of them, the question."""
    media = ["picture" if images == 1 else "pictures"] * bool(images) + ["video" if videos == 1 else "videos"] * bool(
        videos
    )
    return " or ".join(media) or "question"


def canned_text(question: str, images: list[tuple[int, int]], videos: int) -> list[str]:
    """The words of the whole answer. `images` are widths and heights in pixels."""
    sentences = [OPENING.format(what=describe_request(len(images), videos))]
    if images:
        sizes = ", ".join(f"{width} x {height}" for width, height in images)
        sentences.append(f"You sent {plural(len(images), 'picture')} of {sizes} pixels.")
    if videos:
        sentences.append(f"You sent {plural(videos, 'video')}.")
    sentences.append(f"Your text has {plural(len(question.split()), 'word')}.")
    start = crc32(question.encode(errors="replace")) % len(FILLERS)
    sentences += [FILLERS[(start + n) % len(FILLERS)] for n in range(2)]
    return " ".join(sentences).split()


def answer_text(words: list[str], least: int, most: int) -> tuple[list[str], str]:
    """The tokens to send, each with its leading blank, and the finish reason.

    Between `least` and `most` tokens: a short answer is said again from its beginning, a long one is cut.
    """
    length = min(max(len(words), least), most)
    tokens = [(" " if n else "") + word for n, word in enumerate(islice(cycle(words), length))]
    return tokens, "length" if length == most else "stop"


DEPTH = 8
"""Schemas that are nested deeper get null."""


def json_answer(response_format: object) -> str | None:
    """What `response_format` asks for; None for plain text. Raises RequestError."""
    match response_format:
        case None | {"type": "text"}:
            return None
        case {"type": "json_object"}:
            return '{"emulated": true}'
        case {"type": "json_schema", "json_schema": {"schema": dict(schema)}}:
            return json.dumps(_instance(schema, "answer", DEPTH))
    raise invalid(
        "response_format: Input should be text, json_object or json_schema with its schema", "body.response_format"
    )


def grounding_answer(question: str, pictures: int) -> str | None:
    """Boxes or points in Qwen3-VL's form, in thousandths of the picture, where the question names that form."""
    if not pictures or not any(word in question for word in ("bbox_2d", "point_2d", "coordinate")):
        return None
    seed = crc32(question.encode(errors="replace"))
    left, top = 80 + seed % 300, 120 + seed // 300 % 400
    found: list[dict[str, Any]] = []
    if "bbox_2d" in question:
        found.append({"bbox_2d": [left, top, left + 340, top + 180], "label": "emulated box"})
    if "point_2d" in question:
        found.append({"point_2d": [left + 170, top + 90], "label": "emulated point"})
    if "coordinate" in question and "action" in question:
        return json.dumps({"action": "click", "coordinate": [left + 170, top + 90], "reason": "emulated"})
    return json.dumps(found)


def continue_final_message(words: list[str], begun: str) -> list[str]:
    """The words that follow those which a broken-off answer has already; all of them where it is another answer."""
    given = begun.split()
    return words[len(given) :] or ["(The", "end.)"] if words[: len(given)] == given else words


def begun_answer(body: dict[str, Any]) -> str | None:
    """The answer to go on with; None where a new one is asked for. Raises RequestError as vLLM does."""
    if body.get("continue_final_message") is not True:
        return None
    if body.get("add_generation_prompt", True) is not False:
        raise invalid(
            "Cannot set both `continue_final_message` and `add_generation_prompt` to True.",
            "body.continue_final_message",
        )
    messages = body.get("messages")
    last = messages[-1] if isinstance(messages, list) and messages else None
    if isinstance(last, dict) and last.get("role") == "assistant" and isinstance(last.get("content"), str):
        return str(last["content"])
    raise invalid("continue_final_message wants an assistant's text as the last message", "body.messages")


def _instance(schema: dict[str, Any], name: str, depth: int) -> Any:
    """A value that fits the common keywords of JSON Schema."""
    if depth == 0:
        return None
    if "const" in schema:
        return schema["const"]
    if isinstance(schema.get("enum"), list) and schema["enum"]:
        return schema["enum"][0]
    kind = schema.get("type", "object" if "properties" in schema else "string")
    kind = kind[0] if isinstance(kind, list) and kind else kind
    match kind:
        case "object":
            properties = schema.get("properties")
            properties = properties if isinstance(properties, dict) else {}
            return {
                key: _instance(value if isinstance(value, dict) else {}, key, depth - 1)
                for key, value in properties.items()
            }
        case "array":
            items = schema.get("items")
            count = max(1, schema["minItems"] if isinstance(schema.get("minItems"), int) else 1)
            return [_instance(items if isinstance(items, dict) else {}, name, depth - 1) for _ in range(min(count, 8))]
        case "integer":
            return 1
        case "number":
            return 1.5
        case "boolean":
            return True
        case "null":
            return None
    return f"emulated {name}"
