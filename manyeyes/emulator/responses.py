"""Builds answers and errors in OpenAI's format, with the fields, messages, statuses and types of vLLM 0.32."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice
from typing import Any
from zlib import crc32

import orjson

from manyeyes.emulator.cli import EmulatorOptions
from manyeyes.simulator.request import EngineRequest

ELSEWHERE = "Please try again later or on a different instance."


class RequestError(Exception):
    """The error with which a request is answered."""

    def __init__(self, message: str, *, status: int = 400, kind: str = "BadRequestError", param: str | None = None):
        super().__init__(message)
        self.message = message
        self.status = status
        self.kind = kind
        self.param = param

    def body(self) -> dict[str, Any]:
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.status}}


def invalid(message: str, param: str | None = None) -> RequestError:
    """Error for a body with an invalid structure. Only for these errors vLLM writes the type with a space."""
    return RequestError(f"1 validation error:\n  {message}", kind="Bad Request", param=param)


def wrong_value(message: str, param: str, value: object) -> RequestError:
    """Error for a parameter of the right type with an invalid value."""
    return RequestError(f"{message} (parameter={param}, value={value})", param=param)


def unknown_model(name: str, served: tuple[str, ...]) -> RequestError:
    message = f"The model `{name}` does not exist. Valid aliases: {', '.join(served)}."
    return RequestError(message, status=404, kind="NotFoundError", param="model")


def internal_error(message: str, status: int = 500) -> RequestError:
    return RequestError(message, status=status, kind="InternalServerError")


# vLLM's messages between SIGTERM and its exit, and between the death of the engine core and the exit of the process.
SHUTTING_DOWN = "cannot schedule new futures after shutdown"
ENGINE_DEAD = "EngineCore encountered an issue. See stack trace (above) for the root cause."
ON_COMMAND = "This engine is emulated and fails on command."
# vLLM would answer 200 with random text; an error can be tested.
WEIGHTLESS = "This engine is emulated: after sleep level 2 its weights were not reloaded."


def unavailable(why: str) -> RequestError:
    """Error for a limit of the queue. vLLM sends no Retry-After."""
    return RequestError(f"{why} {ELSEWHERE}", status=503, kind="Service Unavailable")


# More requests than --max-num-queued-reqs; more prompt tokens than --max-num-queued-tokens.
BUSY = "The engine is currently busy and cannot accept new requests."
BACKLOG = "The engine has reached its prefill token backlog limit."


DONE = b"data: [DONE]\n\n"
FINGERPRINT = "emulated"


@dataclass
class CompletionResponse:
    """Builds the answer to one request: chat or plain completion, complete or in chunks."""

    job: EngineRequest
    request_id: str
    chat: bool
    has_details: bool = True
    """Whether the usage reports the prompt tokens from the prefix cache."""
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, tokens: Sequence[str], finish_reason: str, cached_tokens: int) -> bytes:
        text = "".join(tokens)
        content = {"message": {"role": "assistant", "content": text}} if self.chat else {"text": text}
        choice = {"index": 0, **content, "logprobs": None, "finish_reason": finish_reason, "stop_reason": None}
        body = self._body("chat.completion" if self.chat else "text_completion", [choice])
        body["usage"] = self._usage(len(tokens), cached_tokens)
        return orjson.dumps(body)

    def opening(self) -> bytes:
        """The chunk before the first token; empty for plain completions."""
        return self._event([self._choice({"role": "assistant", "content": ""}, None)]) if self.chat else b""

    def chunk(self, token: str, finish_reason: str | None) -> bytes:
        return self._event([self._choice({"content": token}, finish_reason)])

    def closing(self, completion_tokens: int, cached_tokens: int) -> bytes:
        """The end of the stream, with token counts if the request includes usage."""
        if not self.job.include_usage:
            return DONE
        return self._event([], usage=self._usage(completion_tokens, cached_tokens)) + DONE

    def failure(self, error: RequestError) -> bytes:
        """The end of a stream that fails after it has begun."""
        return b"data: " + orjson.dumps(error.body()) + b"\n\n" + DONE

    def _choice(self, delta: dict[str, str], finish_reason: str | None) -> dict[str, Any]:
        content = {"delta": delta} if self.chat else {"text": delta["content"]}
        return {"index": 0, **content, "logprobs": None, "finish_reason": finish_reason}

    def _event(self, choices: list[dict[str, Any]], **more: object) -> bytes:
        body = self._body("chat.completion.chunk" if self.chat else "text_completion", choices) | more
        return b"data: " + orjson.dumps(body) + b"\n\n"

    def _body(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self.request_id,
            "object": kind,
            "created": self.created,
            "model": self.job.model,
            "choices": choices,
            "system_fingerprint": FINGERPRINT,
        }

    def _usage(self, completion_tokens: int, cached_tokens: int) -> dict[str, Any]:
        return {
            "prompt_tokens": self.job.prompt_tokens,
            "total_tokens": self.job.prompt_tokens + completion_tokens,
            "completion_tokens": completion_tokens,
            "prompt_tokens_details": {"cached_tokens": cached_tokens} if self.has_details else None,
        }


def models_body(options: EmulatorOptions) -> bytes:
    root = options.served_model_name[0]
    created = int(time.time())
    card = {"object": "model", "created": created, "owned_by": "vllm", "root": root, "parent": None}
    names = [{"id": name, **card, "max_model_len": options.max_model_len} for name in options.served_model_name]
    return orjson.dumps({"object": "list", "data": names})


OPENING = "This answer is emulated: no model has seen your {content}."
FILLERS = (
    "Only the time it took is meant to resemble that of a real engine.",
    "Start an engine with a real model to read a real answer here.",
    "Every word of it was written before your question.",
    "Ask as often as you like: the same question gets the same words.",
    "The numbers of tokens are estimates from lengths and sizes.",
)


def plural(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def describe_request(images: int, videos: int) -> str:
    """Words for the media in the question: image, images, video, videos, or question if there are none."""
    media = ["image" if images == 1 else "images"] * bool(images) + ["video" if videos == 1 else "videos"] * bool(
        videos
    )
    return " or ".join(media) or "question"


def canned_text(question: str, images: list[tuple[int, int]], videos: int) -> list[str]:
    """The words of the whole answer. `images` are widths and heights in pixels."""
    sentences = [OPENING.format(content=describe_request(len(images), videos))]
    if images:
        sizes = ", ".join(f"{width} x {height}" for width, height in images)
        sentences.append(f"You sent {plural(len(images), 'image')} of {sizes} pixels.")
    if videos:
        sentences.append(f"You sent {plural(videos, 'video')}.")
    sentences.append(f"Your text has {plural(len(question.split()), 'word')}.")
    start = crc32(question.encode(errors="replace")) % len(FILLERS)
    sentences += [FILLERS[(start + n) % len(FILLERS)] for n in range(2)]
    return " ".join(sentences).split()


def answer_text(words: list[str], min_tokens: int, max_tokens: int) -> tuple[list[str], str]:
    """The tokens to send, each with its leading space, and the finish reason.

    The answer has between `min_tokens` and `max_tokens` tokens: a short answer is repeated from its beginning, a long answer is
    cut.
    """
    length = min(max(len(words), min_tokens), max_tokens)
    tokens = [(" " if n else "") + word for n, word in enumerate(islice(cycle(words), length))]
    return tokens, "length" if length == max_tokens else "stop"


DEPTH = 8
"""Maximum depth of schemas; values that are nested deeper are null."""


def json_answer(response_format: object) -> str | None:
    """An answer in the `response_format` of the request; None for plain text. Raises RequestError."""
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


def grounding_answer(question: str, images: int) -> str | None:
    """Boxes or points in Qwen3-VL's format, in thousandths of the image, if the question names that format."""
    if not images or not any(word in question for word in ("bbox_2d", "point_2d", "coordinate")):
        return None
    seed = crc32(question.encode(errors="replace"))
    left, top = 80 + seed % 300, 120 + seed // 300 % 400
    marks: list[dict[str, Any]] = []
    if "bbox_2d" in question:
        marks.append({"bbox_2d": [left, top, left + 340, top + 180], "label": "emulated box"})
    if "point_2d" in question:
        marks.append({"point_2d": [left + 170, top + 90], "label": "emulated point"})
    if "coordinate" in question and "action" in question:
        return json.dumps({"action": "click", "coordinate": [left + 170, top + 90], "reason": "emulated"})
    return json.dumps(marks)


def continue_final_message(words: list[str], begun: str) -> list[str]:
    """The words that follow the start of the answer in `begun`; all words if it is the start of another answer."""
    given = begun.split()
    return words[len(given) :] or ["(The", "end.)"] if words[: len(given)] == given else words


def begun_answer(body: dict[str, Any]) -> str | None:
    """The start of the answer to continue; None for a new answer. Raises RequestError as vLLM does."""
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
    raise invalid("continue_final_message requires an assistant's text as the last message", "body.messages")


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
