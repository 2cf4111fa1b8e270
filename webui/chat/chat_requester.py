"""Builds the request for a question with its files, within what its model takes, and streams the answer.

The chat, Documents, Compare, Individual and Agent all ask through `ChatRequester`.
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
    """In the order in which a tab hands them over."""

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
        if self.system is None:  # a box in a tab that was never opened
            object.__setattr__(self, "system", "")

    @property
    def limits(self) -> AttachmentLimits:
        return AttachmentLimits(int(self.longest), float(self.frames_per_s), int(self.most_frames))

    def build_request(
        self, messages: list[dict[str, Any]], by: Visitor, response_format: dict[str, Any] | None = None
    ) -> ChatRequest:
        """Raises UserError where no model is chosen."""
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
        found = str(self.seed if self.seed is not None else "").strip()
        if not found:
            return None
        if not found.removeprefix("-").isdecimal():
            raise UserError(
                _("The seed is a whole number, found {found}.", found=repr(found[:20])),
                _("Correct or empty it, then press retry."),
            )
        return int(found)


@dataclass(frozen=True)
class Preset:
    name: str
    system: str
    temperature: float
    top_p: float
    max_tokens: int
    prompt: str = ""
    """Put into the box where that is empty."""


DEFAULT_PRESET = Preset(N_("Free chat"), "", 0.7, 0.8, 1024)

PRESETS = (
    DEFAULT_PRESET,
    Preset(
        N_("Read text (OCR)"),
        N_("You transcribe documents exactly. Keep line breaks, write tables as Markdown, add nothing."),
        0.0,
        1.0,
        4096,
        N_("Transcribe all text in this picture."),
    ),
    Preset(
        N_("Chart or table"),
        N_(
            "You read charts and tables. Give the numbers first, as a Markdown table, then two sentences of what they say."
        ),
        0.0,
        1.0,
        2048,
        N_("What does this chart show?"),
    ),
    Preset(N_("Describe"), "", 0.7, 0.8, 1024, N_("Describe this picture in detail.")),
    Preset(
        N_("Find and count"),
        N_("You locate things in pictures. Say how many there are and where each one is."),
        0.1,
        0.9,
        1024,
        N_("How many people are in this picture, and where?"),
    ),
    Preset(
        N_("Watch a video"),
        N_("You describe videos in the order of time, with the second at which each thing happens."),
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
    """What each model takes, from cluster.yaml; read again when the file changes.

    Without a file, or with a model it does not name, the schema's own defaults count.
    """

    def __init__(self, path: Path | None) -> None:
        def read() -> tuple[Pool, ...]:
            return load(path).pools if path else ()

        def refused(error: Exception) -> None:
            log.log_event("model_limits_unavailable", path=str(path), error=str(error)[:300])

        self._pools = ReloadedFile[tuple[Pool, ...]](path, (), read, refused)

    def pool(self, model: str | None) -> Pool | None:
        """The pool that serves `model`; None for a name that no pool has (`auto`, an endpoint elsewhere)."""
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
        """Asks after `history` and fills `answer`; an error is put there too, never raised."""
        try:
            messages, attached = await asyncio.to_thread(self._messages, text, files, sampling, history)
            request = sampling.build_request(messages, by, response_format)
        except Exception as error:
            answer.failure = as_user_error(error)
            return
        answer.attached = attached
        answer.vision_tokens_estimate = sum(attachment.tokens for attachment in attached)
        answer.started_s = time.monotonic()  # reading files is not the engine's time
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
