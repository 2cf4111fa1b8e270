"""Parses the body of a chat completion or a plain completion to an `EngineRequest`."""

from dataclasses import dataclass, field
from typing import Any

import orjson

from manyeyes.emulator import media_headers, responses
from manyeyes.emulator.cli import EmulatorOptions
from manyeyes.emulator.responses import RequestError, invalid, unknown_model, wrong_value
from manyeyes.simulator import request
from manyeyes.simulator.request import EngineRequest, MediaItem


def parse_body(raw: bytes, content_type: str) -> dict[str, Any]:
    """The JSON object of a request. Raises RequestError if the body is not a JSON object."""
    if content_type.partition(";")[0].strip().lower() != "application/json":
        raise invalid("Unsupported Media Type: Only 'application/json' is allowed")
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise invalid(f"JSON decode error: {error}", f"body.{error.pos}") from None
    if not isinstance(body, dict):
        raise invalid("Input should be a valid dictionary or object to extract fields from", "body")
    return body


def whole_number(body: dict[str, Any], name: str, default: int) -> int:
    """A whole number; null counts as missing."""
    value = body.get(name)
    if value is None:
        return default
    if not isinstance(value, int) or isinstance(value, bool):
        raise invalid(f"{name}: Input should be a valid integer", f"body.{name}")
    return value


def boolean(body: dict[str, Any], name: str) -> bool:
    """A boolean; null counts as false."""
    value = body.get(name)
    if value is not None and not isinstance(value, bool):
        raise invalid(f"{name}: Input should be a valid boolean", f"body.{name}")
    return bool(value)


def served_model(body: dict[str, Any], options: EmulatorOptions) -> str:
    """The requested model, which must be a served name; the first served name if the request has no model."""
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


def cache_salt(body: dict[str, Any]) -> str:
    """The salt of the prefix cache; empty if the request has none. vLLM's rules."""
    salt = body.get("cache_salt")
    if salt is None:
        return ""
    if not isinstance(salt, str) or not salt or len(salt) > 128 or set(salt) & set("@/\\\0"):
        raise wrong_value("Parameter 'cache_salt' must be a short, non-empty string.", "cache_salt", salt)
    return salt


def check_n(body: dict[str, Any], options: EmulatorOptions) -> None:
    """Refuses `n` other than 1. vLLM supports several answers per request; the emulator does not."""
    if (n := whole_number(body, "n", 1)) > options.max_answers:
        raise RequestError(
            f"n must be at most {options.max_answers}, got {n}. To increase this limit, set the VLLM_MAX_N_SEQUENCES "
            "environment variable."
        )
    if n != 1:
        raise wrong_value("This engine is emulated and gives one answer per request.", "n", n)


def answer_length(
    body: dict[str, Any], prompt_tokens: int, default: int | None, options: EmulatorOptions
) -> tuple[int, int]:
    """Minimum and maximum number of tokens of the answer. `default`: the maximum if the request has none."""
    room = options.max_model_len - prompt_tokens
    if room < 1:
        raise RequestError(
            f"This model's maximum context length is {options.max_model_len} tokens. However, your prompt contains "
            f"{prompt_tokens} input tokens, which exceeds this limit even without any output tokens. "
            f"Please reduce the length of the input prompt. (parameter=input_tokens, value={prompt_tokens})",
            param="input_tokens",
        )
    requested = whole_number(body, "max_completion_tokens", whole_number(body, "max_tokens", default or room))
    if requested < 1:
        raise wrong_value(f"max_tokens must be at least 1, got {requested}.", "max_tokens", requested)
    if requested > options.max_model_len:
        message = f"max_tokens={requested} cannot be greater than max_model_len={options.max_model_len}."
        raise wrong_value(f"{message} Please request fewer output tokens.", "max_tokens", requested)
    max_tokens = min(requested, room)
    min_tokens = max_tokens if boolean(body, "ignore_eos") else min(max_tokens, whole_number(body, "min_tokens", 0))
    return min_tokens, max_tokens


@dataclass
class Prompt:
    tokens: list[int] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    media: list[MediaItem] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)  # widths and heights of the images in pixels

    def count(self, kind: str) -> int:
        return sum(medium.kind == kind for medium in self.media)

    def add_text(self, text: str, per_word: float) -> None:
        self.texts.append(text)
        self.tokens += request.text_tokens(text, per_word)

    def add_medium(self, medium: MediaItem) -> None:
        self.media.append(medium)
        self.tokens += [request.VISION_START, *[medium.key] * medium.tokens, request.VISION_END]


def read_chat(body: dict[str, Any], options: EmulatorOptions) -> EngineRequest:
    """Parses the body of /v1/chat/completions. Raises RequestError."""
    name = served_model(body, options)
    check_n(body, options)
    prompt = read_prompt(body.get("messages"), options)
    min_tokens, max_tokens = answer_length(body, len(prompt.tokens), None, options)
    begun = responses.begun_answer(body)
    question = "\n".join(prompt.texts if begun is None else prompt.texts[:-1])
    form = responses.json_answer(body.get("response_format")) or responses.grounding_answer(
        question, prompt.count("image")
    )
    words = form.split(" ") if form else responses.canned_text(question, prompt.sizes, prompt.count("video"))
    if begun is not None:
        words = responses.continue_final_message(words, begun)
    answer, finish_reason = responses.answer_text(words, min_tokens, max_tokens)
    if begun is not None and answer and begun and not begun[-1].isspace():
        answer[0] = f" {answer[0]}"
    return EngineRequest(
        model=name,
        prompt=prompt.tokens,
        media=tuple(prompt.media),
        text=question,
        answer=answer,
        finish_reason=finish_reason,
        stream=boolean(body, "stream"),
        include_usage=include_usage(body),
        cache_salt=cache_salt(body),
    )


def read_prompt(messages: object, options: EmulatorOptions) -> Prompt:
    """Parses the messages. Raises RequestError."""
    if messages is None:
        raise invalid("messages: Field required", "body.messages")
    if not isinstance(messages, list):
        raise invalid("messages: Input should be a valid list", "body.messages")
    if not messages:
        raise RequestError("Cannot apply chat template to an empty conversation. Provide at least one message.")
    prompt = Prompt()
    for number, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise invalid("Input should be a message with a role", f"body.messages.{number}")
        prompt.tokens += request.before_message(message["role"])
        content = message.get("content")
        # Answers of an emulated engine have one token per word, whatever a tokenizer would produce.
        per_word = 1.0 if message["role"] == "assistant" else options.profile.tokens_per_word
        if isinstance(content, str):
            prompt.add_text(content, per_word)
        elif isinstance(content, list):
            for part in content:
                read_part(part, prompt, options, per_word)
        elif content is not None:  # an assistant turn with only tool calls has no content
            raise invalid("Input should be a string or a list of parts", f"body.messages.{number}.content")
        prompt.tokens += request.after_message()
    prompt.tokens += request.before_message("assistant")
    return prompt


_MEDIA_CACHE: dict[str, str] = {}
"""Media by uuid, for all clients: vLLM has one processor cache for all users."""


def _cached(part: dict[str, object]) -> object:
    """The part with the data first sent under its uuid. Raises RequestError if no data was sent."""
    uuid = str(part["uuid"])
    for kind in ("image_url", "video_url"):
        if kind in part:
            match part[kind]:
                case {"url": str(url)} | str(url):
                    _MEDIA_CACHE.setdefault(uuid, url)
            if uuid not in _MEDIA_CACHE:
                raise RequestError(f"Cache miss for a medium with the uuid {uuid}, whose data was not sent.")
            return {"type": kind, kind: _MEDIA_CACHE[uuid]}
    raise RequestError("Missing 'type' field in multimodal part.")


def read_part(part: object, prompt: Prompt, options: EmulatorOptions, per_word: float) -> None:
    """Adds one part of a message to `prompt`. As in vLLM, media are counted before they are read."""
    if isinstance(part, dict) and part.get("uuid") is not None:
        part = _cached(part)
    match part:
        case str(text) | {"type": "text", "text": str(text)}:
            prompt.add_text(text, per_word)
        case {"type": "image_url", "image_url": {"url": str(url)} | str(url)}:
            if prompt.count("image") >= options.images_per_prompt:
                raise too_many_error("image", options.images_per_prompt)
            read_image(media_headers.payload(url), prompt, options)
        case {"type": "video_url", "video_url": {"url": str(url)} | str(url)}:
            if prompt.count("video") >= options.videos_per_prompt:
                raise too_many_error("video", options.videos_per_prompt)
            read_video(media_headers.payload(url), prompt, options)
        case {"type": "input_audio" | "audio_url"}:
            raise too_many_error("audio", 0)
        case _:
            raise RequestError("A part of a message must be a text, an image_url or a video_url with its content.")


def check_pixels(medium: str, width: int, height: int, options: EmulatorOptions) -> None:
    """Checks the number of pixels before anything is decoded, as vLLM does. A limit of 0 means no limit."""
    if 0 < options.max_image_pixels < width * height:
        raise RequestError(
            f"{medium} dimensions {width}x{height} ({width * height} pixels) exceed the maximum of "
            f"{options.max_image_pixels} pixels. Set VLLM_MAX_IMAGE_PIXELS to increase this limit."
        )


def read_image(base64: str, prompt: Prompt, options: EmulatorOptions) -> None:
    width, height = media_headers.image_size(base64)
    check_pixels("Image", width, height, options)
    wide, high = request.fitted(width, height, options.min_pixels, options.max_pixels)
    prompt.sizes.append((width, height))
    prompt.add_medium(
        MediaItem(
            kind="image",
            key=hash(base64),  # hashes the whole text once, at some GB/s; the image is not decoded
            offset=len(prompt.tokens) + 1,
            tokens=request.image_tokens(wide, high),
            frames=1,
            source_pixels=width * height,
            fitted_pixels=wide * high,
        )
    )


def read_video(base64: str, prompt: Prompt, options: EmulatorOptions) -> None:
    clip = media_headers.read_clip(base64)
    check_pixels("Video frame", clip.width, clip.height, options)
    frames = clip.sampled_frames(options.video_frames)
    wide, high = request.fitted_frame(clip.width, clip.height, frames, options.video_max_pixels)
    prompt.add_medium(
        MediaItem(
            kind="video",
            key=hash(base64),
            offset=len(prompt.tokens) + 1,
            tokens=request.video_tokens(wide, high, frames),
            frames=frames,
            source_pixels=frames * clip.width * clip.height,
            fitted_pixels=frames * wide * high,
        )
    )


def too_many_error(medium: str, limit: int) -> RequestError:
    message = f"At most {limit} {medium}(s) may be provided in one prompt. (parameter={medium})"
    return RequestError(message, param=medium)


DEFAULT_MAX_TOKENS = 16  # default of OpenAI and vLLM for this path only


def read_completion(body: dict[str, Any], options: EmulatorOptions) -> EngineRequest:
    """Parses the body of /v1/completions: one prompt, as text or as token ids. Raises RequestError."""
    name = served_model(body, options)
    check_n(body, options)
    match body.get("prompt"):
        case str(prompt) | [str(prompt)] if prompt:
            ids = request.text_tokens(prompt, options.profile.tokens_per_word) or [0]
        case [int(), *_] as ids:
            prompt = " ".join(map(str, ids))
        case [str() | [*_], *_] as prompts if len(prompts) > options.max_completion_prompts:
            raise RequestError(
                f"prompt list length {len(prompts)} exceeds the maximum allowed count of {options.max_completion_prompts}. "
                "To increase this limit, set the VLLM_MAX_COMPLETION_PROMPTS environment variable. (parameter=prompt)",
                param="prompt",
            )
        case [str(), *_]:
            raise RequestError("This engine is emulated and accepts one prompt per request.", param="prompt")
        case _:
            message = "Either prompt or prompt_embeds must be provided and non-empty. (parameter=prompt)"
            raise RequestError(message, param="prompt")
    min_tokens, max_tokens = answer_length(body, len(ids), DEFAULT_MAX_TOKENS, options)
    answer, finish_reason = responses.answer_text(responses.canned_text(prompt, [], 0), min_tokens, max_tokens)
    return EngineRequest(
        model=name,
        prompt=ids,
        media=(),
        text=prompt,
        answer=answer,
        finish_reason=finish_reason,
        stream=boolean(body, "stream"),
        include_usage=include_usage(body),
        cache_salt=cache_salt(body),
    )
