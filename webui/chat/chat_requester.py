"""Builds chat requests within the limits of the model, and streams the answers.

The Chat, Documents, Compare, Individual and Agent tabs use `ChatRequester`.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from manyeyes.config.loader import load
from manyeyes.config.pools import Media, Pool
from webui import log
from webui.chat import message_builder
from webui.chat.completion_stream import ChatRequest, CompletionBackend, Visitor, stream_with_resume
from webui.chat.message_builder import Message
from webui.chat.streamed_answer import StreamedAnswer
from webui.files import attachments
from webui.files.attachments import AttachmentLimits, PreparedAttachment
from webui.files.vision_tokens import FRAMES_PER_S
from webui.i18n import N_, _
from webui.settings import ReloadedFile
from webui.user_error import UserError, as_user_error


@dataclass(frozen=True)
class SamplingSettings:
    """Model, sampling and attachment settings, in the order of a tab's input components."""

    model: str | None
    system: str = ""
    temperature: float = 0.7
    top_p: float = 0.8
    max_tokens: float = 1024
    seed: str | int | None = None
    """Empty: random."""
    longest: float = 1280
    frames_per_s: float = FRAMES_PER_S
    most_frames: float = 16

    def __post_init__(self) -> None:
        if self.system is None:  # the text box of a tab that was never opened
            object.__setattr__(self, "system", "")

    @property
    def limits(self) -> AttachmentLimits:
        return AttachmentLimits(int(self.longest), float(self.frames_per_s), int(self.most_frames))

    def build_request(
        self, messages: list[dict[str, Any]], by: Visitor, response_format: dict[str, Any] | None = None
    ) -> ChatRequest:
        """Raises UserError if no model is chosen or the seed is not a whole number."""
        if not self.model:
            raise UserError(_("No model is chosen."), _("Choose one in the settings, then press retry."))
        return ChatRequest(
            self.model,
            messages,
            by.page,
            self.temperature,
            self.top_p,
            int(self.max_tokens),
            by.key,
            self._seed(),
            response_format,
        )

    def _seed(self) -> int | None:
        text = str(self.seed if self.seed is not None else "").strip()
        if not text:
            return None
        if not text.removeprefix("-").isdecimal():
            raise UserError(
                _("Seed: expected a whole number, got {value}.", value=repr(text[:20])),
                _("Correct it or clear it, then press retry."),
            )
        return int(text)


@dataclass(frozen=True)
class Preset:
    name: str
    system: str
    temperature: float
    top_p: float
    max_tokens: int
    prompt: str = ""
    """Fills the question box if it is empty."""


DEFAULT_PRESET = Preset(N_("Free chat"), "", 0.7, 0.8, 1024)

PRESETS = (
    DEFAULT_PRESET,
    Preset(
        N_("Read text (OCR)"),
        N_("You transcribe documents exactly. Keep line breaks, write tables as Markdown, add nothing."),
        0.0,
        1.0,
        4096,
        N_("Transcribe all text in this image."),
    ),
    Preset(
        N_("Chart or table"),
        N_(
            "You read charts and tables. Give the numbers first, as a Markdown table, then explain them in two sentences."
        ),
        0.0,
        1.0,
        2048,
        N_("What does this chart show?"),
    ),
    Preset(N_("Describe"), "", 0.7, 0.8, 1024, N_("Describe this image in detail.")),
    Preset(
        N_("Find and count"),
        N_("You locate objects in images. State how many there are and where each of them is."),
        0.1,
        0.9,
        1024,
        N_("How many people are in this image, and where?"),
    ),
    Preset(
        N_("Watch a video"),
        N_("You describe videos in chronological order, with the second at which each event happens."),
        0.7,
        0.8,
        2048,
        N_("What happens in this video?"),
    ),
    Preset(
        N_("Code from a screenshot"),
        N_("Answer with code only."),
        0.2,
        0.9,
        4096,
        N_("Write HTML and CSS for this screen."),
    ),
)


class ModelLimits:
    """Limits of each model from cluster.yaml, reloaded when the file changes.

    Without a file, and for unknown models, the defaults of the schema apply.
    """

    def __init__(self, path: Path | None) -> None:
        def read() -> tuple[Pool, ...]:
            return load(path).pools if path else ()

        def refused(error: Exception) -> None:
            log.log_event("model_limits_unavailable", path=str(path), error=str(error)[:300])

        self._pools = ReloadedFile[tuple[Pool, ...]](path, (), read, refused)

    def pool(self, model: str | None) -> Pool | None:
        """Returns the pool that serves `model`; None for other names (`auto`, external endpoints)."""
        return next((pool for pool in self._pools() if model in pool.names), None)

    def media(self, model: str | None) -> Media:
        pool = self.pool(model)
        return pool.media if pool else Media()


class ChatRequester:
    """Sends requests to the gateway, or to another `backend`."""

    def __init__(self, backend: CompletionBackend, model_limits: ModelLimits, max_body_bytes: int) -> None:
        self._backend = backend
        self._model_limits = model_limits
        self._max_body_bytes = max_body_bytes

    async def send(
        self,
        text: str,
        files: list[str],
        sampling: SamplingSettings,
        by: Visitor,
        answer: StreamedAnswer,
        history: Sequence[Message] = (),
        response_format: dict[str, Any] | None = None,
    ) -> None:
        """Sends a question after `history` and fills `answer`. Failures are stored in `answer`, not raised."""
        try:
            messages, attached = await asyncio.to_thread(self._messages, text, files, sampling, history)
            request = sampling.build_request(messages, by, response_format)
        except Exception as error:
            answer.failure = as_user_error(error)
            return
        answer.attached = attached
        answer.vision_tokens_estimate = sum(attachment.tokens for attachment in attached)
        answer.started_s = time.monotonic()  # the time for reading files does not count
        await stream_with_resume(self._backend, request, answer)

    def _messages(
        self, text: str, files: list[str], sampling: SamplingSettings, history: Sequence[Message]
    ) -> tuple[list[dict[str, Any]], list[PreparedAttachment]]:
        media = self._model_limits.media(sampling.model)
        attached = attachments.prepare_attachments(files, sampling.limits, media)
        chat = [*history, message_builder.user_message(text, [str(attachment.path) for attachment in attached])]
        if self._model_limits.pool(sampling.model):
            message_builder.check_media_count(
                chat, str(sampling.model), media.images_per_prompt, media.videos_per_prompt
            )
        sent_as = attachments.sent_file_resolver(sampling.limits, media)
        message_builder.check_request_size(chat, sampling.system, self._max_body_bytes, sent_as)
        return message_builder.openai_messages(chat, sampling.system, sent_as), attached
