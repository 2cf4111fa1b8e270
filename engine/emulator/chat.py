"""From the body of a chat completion to a Job."""

from dataclasses import dataclass, field
from typing import Any

from engine.emulator import fields, images, text, tokens, videos
from engine.emulator.errors import RequestError, invalid
from engine.emulator.job import Job
from engine.emulator.options import Options


@dataclass
class Prompt:
    """What all messages hold together."""

    texts: list[str] = field(default_factory=list)
    images: list[tuple[int, int]] = field(default_factory=list)  # widths and heights in pixels
    videos: int = 0
    messages: int = 0

    def tokens(self, options: Options) -> int:
        limits = (options.min_pixels, options.max_pixels)
        return (
            sum(map(tokens.text_tokens, self.texts))
            + sum(tokens.image_tokens(*size, *limits) for size in self.images)
            + self.videos * tokens.video_tokens(*limits)
            + self.messages * tokens.PER_MESSAGE
            + tokens.OPENING
        )


def read_job(body: dict[str, Any], options: Options) -> Job:
    """Read the body of /v1/chat/completions. Raises RequestError."""
    name = fields.model(body, options)
    fields.check_n(body)
    prompt = read_prompt(body.get("messages"), options)
    prompt_tokens = prompt.tokens(options)
    least, most = fields.answer_length(body, prompt_tokens, None, options)
    words = text.canned("\n".join(prompt.texts), prompt.images, prompt.videos)
    answer, finish_reason = text.answer(words, least, most)
    return Job(
        model=name,
        prompt_tokens=prompt_tokens,
        media=len(prompt.images) + prompt.videos,
        tokens=answer,
        finish_reason=finish_reason,
        stream=fields.flag(body, "stream"),
        include_usage=fields.include_usage(body),
    )


def read_prompt(messages: object, options: Options) -> Prompt:
    """Read the messages. Raises RequestError."""
    if messages is None:
        raise invalid("messages: Field required", "body.messages")
    if not isinstance(messages, list):
        raise invalid("messages: Input should be a valid list", "body.messages")
    if not messages:
        raise RequestError("Cannot apply chat template to an empty conversation. Provide at least one message.")
    prompt = Prompt(messages=len(messages))
    for number, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise invalid("Input should be a message with a role", f"body.messages.{number}")
        content = message.get("content")
        if isinstance(content, str):
            prompt.texts.append(content)
        elif isinstance(content, list):
            for part in content:
                read_part(part, prompt, options)
        elif content is not None:  # an assistant's turn that only called tools has no content
            raise invalid("Input should be a string or a list of parts", f"body.messages.{number}.content")
    return prompt


def read_part(part: object, prompt: Prompt, options: Options) -> None:
    """Add one part of a message to `prompt`. Media are counted before they are looked at, as in vLLM."""
    match part:
        case str(words) | {"type": "text", "text": str(words)}:
            prompt.texts.append(words)
        case {"type": "image_url", "image_url": {"url": str(url)} | str(url)}:
            if len(prompt.images) >= options.images_per_prompt:
                raise too_many("image", options.images_per_prompt)
            prompt.images.append(images.size(url))
        case {"type": "video_url", "video_url": {"url": str(url)} | str(url)}:
            if prompt.videos >= options.videos_per_prompt:
                raise too_many("video", options.videos_per_prompt)
            videos.check(url)
            prompt.videos += 1
        case {"type": "input_audio" | "audio_url"}:
            raise too_many("audio", 0)
        case _:
            raise RequestError("A part of a message must be a text, an image_url or a video_url with its content.")


def too_many(medium: str, limit: int) -> RequestError:
    message = f"At most {limit} {medium}(s) may be provided in one prompt. (parameter={medium})"
    return RequestError(message, param=medium)
