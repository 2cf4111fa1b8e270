"""From the body of a chat completion to a Job."""

from dataclasses import dataclass, field
from typing import Any

from manyeyes.emulator import canned_text, images, request_fields, structured_output, videos
from manyeyes.emulator.cli import Options
from manyeyes.emulator.errors import RequestError, invalid
from manyeyes.simulator import token_counts
from manyeyes.simulator.request import Job, Medium


@dataclass
class Prompt:
    """What all messages hold together."""

    tokens: list[int] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    media: list[Medium] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)  # of the images: widths and heights in pixels

    def count(self, kind: str) -> int:
        return sum(medium.kind == kind for medium in self.media)

    def add_text(self, words: str, per_word: float) -> None:
        self.texts.append(words)
        self.tokens += token_counts.text_tokens(words, per_word)

    def add_medium(self, medium: Medium) -> None:
        self.media.append(medium)
        self.tokens += [token_counts.VISION_START, *[medium.key] * medium.tokens, token_counts.VISION_END]


def read_job(body: dict[str, Any], options: Options) -> Job:
    """Read the body of /v1/chat/completions. Raises RequestError."""
    name = request_fields.model(body, options)
    request_fields.check_n(body, options)
    prompt = read_prompt(body.get("messages"), options)
    least, most = request_fields.answer_length(body, len(prompt.tokens), None, options)
    begun = structured_output.begun(body)
    question = "\n".join(prompt.texts if begun is None else prompt.texts[:-1])
    form = structured_output.json_answer(body.get("response_format")) or structured_output.grounded(
        question, prompt.count("image")
    )
    words = form.split(" ") if form else canned_text.canned(question, prompt.sizes, prompt.count("video"))
    if begun is not None:
        words = structured_output.rest(words, begun)
    answer, finish_reason = canned_text.answer(words, least, most)
    if begun is not None and answer and begun and not begun[-1].isspace():
        answer[0] = f" {answer[0]}"
    return Job(
        model=name,
        prompt=prompt.tokens,
        media=tuple(prompt.media),
        text=question,
        answer=answer,
        finish_reason=finish_reason,
        stream=request_fields.flag(body, "stream"),
        include_usage=request_fields.include_usage(body),
    )


def read_prompt(messages: object, options: Options) -> Prompt:
    """Read the messages. Raises RequestError."""
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
        prompt.tokens += token_counts.before_message(message["role"])
        content = message.get("content")
        # What an engine here has said is one token a word, however many a tokenizer would make of it.
        per_word = 1.0 if message["role"] == "assistant" else options.profile.tokens_per_word
        if isinstance(content, str):
            prompt.add_text(content, per_word)
        elif isinstance(content, list):
            for part in content:
                read_part(part, prompt, options, per_word)
        elif content is not None:  # an assistant's turn that only called tools has no content
            raise invalid("Input should be a string or a list of parts", f"body.messages.{number}.content")
        prompt.tokens += token_counts.after_message()
    prompt.tokens += token_counts.before_message("assistant")
    return prompt


_KEPT: dict[str, str] = {}
"""Media by their uuid, whoever sent them: vLLM's processor cache is one for all users."""


def _kept(part: dict[str, object]) -> object:
    """A part with a uuid: what was first sent under it. Raises RequestError when it has no data and none was sent."""
    uuid = str(part["uuid"])
    for kind in ("image_url", "video_url"):
        if kind in part:
            match part[kind]:
                case {"url": str(url)} | str(url):
                    _KEPT.setdefault(uuid, url)
            if uuid not in _KEPT:
                raise RequestError(f"Cache miss for a medium with the uuid {uuid}, whose data was not sent.")
            return {"type": kind, kind: _KEPT[uuid]}
    raise RequestError("Missing 'type' field in multimodal part.")


def read_part(part: object, prompt: Prompt, options: Options, per_word: float) -> None:
    """Add one part of a message to `prompt`. Media are counted before they are looked at, as in vLLM."""
    if isinstance(part, dict) and part.get("uuid") is not None:
        part = _kept(part)
    match part:
        case str(words) | {"type": "text", "text": str(words)}:
            prompt.add_text(words, per_word)
        case {"type": "image_url", "image_url": {"url": str(url)} | str(url)}:
            if prompt.count("image") >= options.images_per_prompt:
                raise too_many("image", options.images_per_prompt)
            read_image(images.payload(url), prompt, options)
        case {"type": "video_url", "video_url": {"url": str(url)} | str(url)}:
            if prompt.count("video") >= options.videos_per_prompt:
                raise too_many("video", options.videos_per_prompt)
            read_video(images.payload(url), prompt, options)
        case {"type": "input_audio" | "audio_url"}:
            raise too_many("audio", 0)
        case _:
            raise RequestError("A part of a message must be a text, an image_url or a video_url with its content.")


def check_pixels(what: str, width: int, height: int, options: Options) -> None:
    """As vLLM: before anything is decoded; 0 is no limit."""
    if 0 < options.max_image_pixels < width * height:
        raise RequestError(
            f"{what} dimensions {width}x{height} ({width * height} pixels) exceed the maximum of "
            f"{options.max_image_pixels} pixels. Set VLLM_MAX_IMAGE_PIXELS to increase this limit."
        )


def read_image(base64: str, prompt: Prompt, options: Options) -> None:
    width, height = images.size(base64)
    check_pixels("Image", width, height, options)
    wide, high = token_counts.fitted(width, height, options.min_pixels, options.max_pixels)
    prompt.sizes.append((width, height))
    prompt.add_medium(
        Medium(
            kind="image",
            key=hash(base64),  # the whole text once, at some GB/s: the picture itself stays encoded
            offset=len(prompt.tokens) + 1,
            tokens=token_counts.image_tokens(wide, high),
            frames=1,
            source_pixels=width * height,
            fitted_pixels=wide * high,
        )
    )


def read_video(base64: str, prompt: Prompt, options: Options) -> None:
    clip = videos.read(base64)
    check_pixels("Video frame", clip.width, clip.height, options)
    frames = clip.sampled_frames(options.video_frames)
    wide, high = token_counts.fitted_frame(clip.width, clip.height, frames, options.video_max_pixels)
    prompt.add_medium(
        Medium(
            kind="video",
            key=hash(base64),
            offset=len(prompt.tokens) + 1,
            tokens=token_counts.video_tokens(wide, high, frames),
            frames=frames,
            source_pixels=frames * clip.width * clip.height,
            fitted_pixels=frames * wide * high,
        )
    )


def too_many(medium: str, limit: int) -> RequestError:
    message = f"At most {limit} {medium}(s) may be provided in one prompt. (parameter={medium})"
    return RequestError(message, param=medium)
