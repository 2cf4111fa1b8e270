"""Bodies in OpenAI's form, with the fields that vLLM gives them."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from manyeyes.emulator.cli import Options
from manyeyes.emulator.errors import RequestError
from manyeyes.simulator.request import Job

DONE = b"data: [DONE]\n\n"
FINGERPRINT = "emulated"


@dataclass
class Reply:
    """Builds the answer to one request: `chat` or plain completion, whole or in chunks."""

    job: Job
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


def models(options: Options) -> bytes:
    """The body of /v1/models."""
    root = options.served_model_name[0]
    created = int(time.time())
    card = {"object": "model", "created": created, "owned_by": "vllm", "root": root, "parent": None}
    names = [{"id": name, **card, "max_model_len": options.max_model_len} for name in options.served_model_name]
    return orjson.dumps({"object": "list", "data": names})
