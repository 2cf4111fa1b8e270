"""Extracts an endpoint's answer with the JSON paths of its registration, and writes OpenAI's chat completions. Pure."""

import time
import uuid
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import jsonpath
import orjson

from manyeyes.config.custom_endpoint import Endpoint

END_OF_STREAM = "[DONE]"
LONGEST_LINE_BYTES = 1 << 20


class StreamError(ValueError):
    """The stream is neither server-sent events nor lines of JSON."""


class StreamParser:
    """Parses a stream of server-sent events or lines of JSON."""

    def __init__(self) -> None:
        self.done = False
        self._rest = b""
        self._data: list[str] = []

    def take(self, piece: bytes) -> Iterator[Any]:
        """The documents that these bytes complete. Raises StreamError."""
        lines = (self._rest + piece).split(b"\n")
        self._rest = lines.pop()
        if len(self._rest) > LONGEST_LINE_BYTES:
            raise StreamError("a line is longer than 1 MiB")
        for line in lines:
            yield from self._line(line)

    def end(self) -> Iterator[Any]:
        """The remaining documents at the end of the stream: the last line may have no line break."""
        rest, self._rest = self._rest, b""
        yield from self._line(rest)
        yield from self._line(b"")

    def _line(self, raw: bytes) -> Iterator[Any]:
        try:
            line = raw.decode().rstrip("\r")
        except UnicodeDecodeError as error:
            raise StreamError("it is not UTF-8") from error
        if not line:
            data, self._data = "\n".join(self._data), []
            if data:
                yield from self._document(data)
        elif line.startswith("data:"):
            self._data.append(line[5:].removeprefix(" "))
        elif line[0] in "{[":
            yield from self._document(line)
        # Other fields of an event (its name, its id, a comment) are not part of the answer.

    def _document(self, text: str) -> Iterator[Any]:
        if self.done:
            return
        if text.strip() == END_OF_STREAM:
            self.done = True
            return
        try:
            yield orjson.loads(text)
        except ValueError as error:
            raise StreamError(f"an event is not JSON: {text[:100]}") from error


class ExtractionError(ValueError):
    """The path cannot be evaluated, or it does not select text."""


@lru_cache(maxsize=2048)
def _compiled(path: str) -> Any:
    return jsonpath.compile(path, strict=True)


def _find_all(path: str, document: Any) -> list[Any]:
    # The library would parse a text as JSON again.
    if not isinstance(document, dict | list):
        return []
    try:
        return list(_compiled(path).findall(document))
    except (jsonpath.JSONPathError, RecursionError, TypeError, ValueError) as error:
        raise ExtractionError(f"{path} cannot be evaluated: {' '.join(str(error).split())[:200]}") from error


def _find_optional(path: str, document: Any) -> list[Any]:
    """For optional parts of an answer: empty if the path cannot be evaluated."""
    try:
        return _find_all(path, document)
    except ExtractionError:
        return []


def extract_text(path: str, document: Any) -> str | None:
    """The text at `path`, several matches joined; None if there is no match.

    Raises ExtractionError if a match is not text.
    """
    values = [value for value in _find_all(path, document) if value is not None]
    if any(isinstance(value, dict | list) for value in values):
        raise ExtractionError(f"{path} selects a {type(values[0]).__name__}, expected text")
    return "".join(value if isinstance(value, str) else str(value) for value in values) if values else None


def extract_usage(endpoint: Endpoint, document: Any) -> dict[str, int] | None:
    """OpenAI's usage; None unless both numbers are present."""
    prompt_tokens, completion_tokens = (
        _number(path, document) for path in (endpoint.usage.prompt_tokens, endpoint.usage.completion_tokens)
    )
    if prompt_tokens is None or completion_tokens is None:
        return None
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }


def extract_finish_reason(endpoint: Endpoint, document: Any) -> str | None:
    """stop or length; None if the endpoint does not report a reason."""
    if endpoint.finish_reason is None:
        return None
    reasons = [value for value in _find_optional(endpoint.finish_reason, document) if isinstance(value, str)]
    if not reasons:
        return None
    return "length" if any(word in reasons[0].lower() for word in ("length", "max")) else "stop"


def _number(path: str | None, document: Any) -> int | None:
    values = _find_optional(path, document) if path else []
    value = values[0] if values else None
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


class ChatCompletion:
    """Builds one answer, complete or in chunks."""

    def __init__(self, model: str) -> None:
        self.id = f"chatcmpl-{uuid.uuid4().hex}"
        self.model = model
        self.created = int(time.time())

    def whole(self, text: str, finish_reason: str, usage: dict[str, int] | None) -> dict[str, Any]:
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish_reason}
        return self._head("chat.completion") | {"choices": [choice]} | ({"usage": usage} if usage else {})

    def first(self) -> bytes:
        return self._chunk({"role": "assistant", "content": ""})

    def delta(self, text: str) -> bytes:
        return self._chunk({"content": text})

    def last(self, finish_reason: str) -> bytes:
        return self._chunk({}, finish_reason)

    def usage(self, usage: dict[str, int]) -> bytes:
        return sse_event(self._head("chat.completion.chunk") | {"choices": [], "usage": usage})

    def _chunk(self, delta: dict[str, str], finish_reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return sse_event(self._head("chat.completion.chunk") | {"choices": [choice]})

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}


def sse_event(document: Any) -> bytes:
    return b"data: " + orjson.dumps(document) + b"\n\n"


DONE = b"data: [DONE]\n\n"
