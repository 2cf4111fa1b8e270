"""Reads the fields that chat and plain completions share."""

from typing import Any

import orjson

from manyeyes.emulator.cli import Options
from manyeyes.emulator.errors import RequestError, invalid, unknown_model, wrong_value


def read_body(raw: bytes, content_type: str) -> dict[str, Any]:
    """The JSON object of a request. Raises RequestError when it is none."""
    if content_type.partition(";")[0].strip().lower() != "application/json":
        raise invalid("Unsupported Media Type: Only 'application/json' is allowed")
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise invalid(f"JSON decode error: {error}", f"body.{error.pos}") from None
    if not isinstance(body, dict):
        raise invalid("Input should be a valid dictionary or object to extract fields from", "body")
    return body


def whole(body: dict[str, Any], name: str, default: int) -> int:
    """A whole number; null counts as left out."""
    value = body.get(name)
    if value is None:
        return default
    if not isinstance(value, int) or isinstance(value, bool):
        raise invalid(f"{name}: Input should be a valid integer", f"body.{name}")
    return value


def flag(body: dict[str, Any], name: str) -> bool:
    """A boolean; null counts as false."""
    value = body.get(name)
    if value is not None and not isinstance(value, bool):
        raise invalid(f"{name}: Input should be a valid boolean", f"body.{name}")
    return bool(value)


def model(body: dict[str, Any], options: Options) -> str:
    """The model asked for: one of the served names, and the first of them when the request names none."""
    name = body.get("model")
    if name is None:
        return options.served_model_name[0]
    if name not in options.served_model_name:
        raise unknown_model(str(name), options.served_model_name)
    return str(name)


def include_usage(body: dict[str, Any]) -> bool:
    """Whether a stream ends with a chunk of token counts."""
    stream_options = body.get("stream_options")
    if stream_options is not None and not isinstance(stream_options, dict):
        raise invalid("stream_options: Input should be an object", "body.stream_options")
    return bool(stream_options and stream_options.get("include_usage"))


def check_n(body: dict[str, Any], options: Options) -> None:
    """vLLM gives several answers to one request; this stand-in does not."""
    if (n := whole(body, "n", 1)) > options.max_answers:
        raise RequestError(
            f"n must be at most {options.max_answers}, got {n}. To increase this limit, set the VLLM_MAX_N_SEQUENCES "
            "environment variable."
        )
    if n != 1:
        raise wrong_value("This engine is emulated and gives one answer a request.", "n", n)


def answer_length(body: dict[str, Any], prompt_tokens: int, default: int | None, options: Options) -> tuple[int, int]:
    """The least and the most tokens the answer may have. `default`: the most, when the request does not say."""
    room = options.max_model_len - prompt_tokens
    if room < 1:
        raise RequestError(
            f"This model's maximum context length is {options.max_model_len} tokens. However, your prompt contains "
            f"{prompt_tokens} input tokens, which exceeds this limit even without any output tokens. "
            f"Please reduce the length of the input prompt. (parameter=input_tokens, value={prompt_tokens})",
            param="input_tokens",
        )
    asked = whole(body, "max_completion_tokens", whole(body, "max_tokens", default or room))
    if asked < 1:
        raise wrong_value(f"max_tokens must be at least 1, got {asked}.", "max_tokens", asked)
    if asked > options.max_model_len:
        message = f"max_tokens={asked} cannot be greater than max_model_len={options.max_model_len}."
        raise wrong_value(f"{message} Please request fewer output tokens.", "max_tokens", asked)
    most = min(asked, room)
    least = most if flag(body, "ignore_eos") else min(most, whole(body, "min_tokens", 0))
    return least, most
