"""Bodies of answers and errors in OpenAI's form, with vLLM 0.32's fields, words, statuses and types."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from manyeyes.emulator.cli import EmulatorOptions
from manyeyes.simulator.request import EngineRequest

ELSEWHERE = "Please try again later or on a different instance."


class RequestError(Exception):
    """A request that gets an error instead of an answer."""

    def __init__(self, message: str, *, status: int = 400, kind: str = "BadRequestError", param: str | None = None):
        super().__init__(message)
        self.message = message
        self.status = status
        self.kind = kind
        self.param = param

    def body(self) -> dict[str, Any]:
        """The JSON to answer with."""
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.status}}


def invalid(message: str, param: str | None = None) -> RequestError:
    """A body that is not of the right form. vLLM words the type of these (only these) with a blank."""
    return RequestError(f"1 validation error:\n  {message}", kind="Bad Request", param=param)


def wrong_value(message: str, param: str, value: object) -> RequestError:
    """A parameter of the right type with a value that cannot be."""
    return RequestError(f"{message} (parameter={param}, value={value})", param=param)


def unknown_model(name: str, served: tuple[str, ...]) -> RequestError:
    """A model that this engine does not serve."""
    message = f"The model `{name}` does not exist. Valid aliases: {', '.join(served)}."
    return RequestError(message, status=404, kind="NotFoundError", param="model")


def shutting_down() -> RequestError:
    """What vLLM says between SIGTERM and its end."""
    return RequestError("cannot schedule new futures after shutdown", status=500, kind="InternalServerError")


def engine_dead() -> RequestError:
    """What every request gets from the death of the engine core to the end of the process."""
    message = "EngineCore encountered an issue. See stack trace (above) for the root cause."
    return RequestError(message, status=500, kind="InternalServerError")


def on_command(status: int) -> RequestError:
    """A fault that somebody switched on."""
    return RequestError("This engine is emulated and fails on command.", status=status, kind="InternalServerError")


def busy() -> RequestError:
    """More requests than --max-num-queued-reqs; vLLM sends no Retry-After."""
    message = "The engine is currently busy and cannot accept new requests."
    return RequestError(f"{message} {ELSEWHERE}", status=503, kind="Service Unavailable")


def backlog() -> RequestError:
    """More prompt tokens than --max-num-queued-tokens."""
    message = "The engine has reached its prefill token backlog limit."
    return RequestError(f"{message} {ELSEWHERE}", status=503, kind="Service Unavailable")


def weightless() -> RequestError:
    """It slept at level 2, and its weights were not read again. vLLM would answer 200 with noise; this can be tested."""
    message = "This engine is emulated: after sleep level 2 its weights were not read again."
    return RequestError(message, status=500, kind="InternalServerError")


DONE = b"data: [DONE]\n\n"
FINGERPRINT = "emulated"


@dataclass
class CompletionResponse:
    """Builds the answer to one request: `chat` or plain completion, whole or in chunks."""

    job: EngineRequest
    request_id: str
    chat: bool
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, tokens: Sequence[str], finish_reason: str, cached_tokens: int) -> bytes:
        """The answer in one piece."""
        text = "".join(tokens)
        said = {"message": {"role": "assistant", "content": text}} if self.chat else {"text": text}
        choice = {"index": 0, **said, "logprobs": None, "finish_reason": finish_reason, "stop_reason": None}
        body = self._body("chat.completion" if self.chat else "text_completion", [choice])
        body["usage"] = self._usage(len(tokens), cached_tokens)
        return orjson.dumps(body)

    def opening(self) -> bytes:
        """The chunk before the first token; only chat has one."""
        return self._event([self._choice({"role": "assistant", "content": ""}, None)]) if self.chat else b""

    def chunk(self, token: str, finish_reason: str | None) -> bytes:
        """One token; the last one carries the finish reason."""
        return self._event([self._choice({"content": token}, finish_reason)])

    def closing(self, completion_tokens: int, cached_tokens: int) -> bytes:
        """What ends the stream, token counts included when asked for."""
        if not self.job.include_usage:
            return DONE
        return self._event([], usage=self._usage(completion_tokens, cached_tokens)) + DONE

    def failure(self, error: RequestError) -> bytes:
        """What ends a stream that has begun and cannot go on."""
        return b"data: " + orjson.dumps(error.body()) + b"\n\n" + DONE

    def _choice(self, delta: dict[str, str], finish_reason: str | None) -> dict[str, Any]:
        said = {"delta": delta} if self.chat else {"text": delta["content"]}
        return {"index": 0, **said, "logprobs": None, "finish_reason": finish_reason}

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
            "prompt_tokens_details": {"cached_tokens": cached_tokens},
        }


def models_body(options: EmulatorOptions) -> bytes:
    """The body of /v1/models."""
    root = options.served_model_name[0]
    created = int(time.time())
    card = {"object": "model", "created": created, "owned_by": "vllm", "root": root, "parent": None}
    names = [{"id": name, **card, "max_model_len": options.max_model_len} for name in options.served_model_name]
    return orjson.dumps({"object": "list", "data": names})
