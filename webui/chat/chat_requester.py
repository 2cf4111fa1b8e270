"""Builds the request for a question with its files, within what its model takes, and streams the answer.

The chat, Documents, Compare, Individual and Agent all ask through `ChatRequester`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from manyeyes.config.loader import ConfigError, load
from manyeyes.config.pools import Media, Pool
from webui import log
from webui.chat import message_builder
from webui.chat.completion_stream import CompletionBackend, stream_with_resume
from webui.chat.message_builder import Message
from webui.chat.sampling_settings import SamplingSettings
from webui.chat.streamed_answer import StreamedAnswer
from webui.files import attachments
from webui.files.attachments import PreparedAttachment
from webui.user_error import as_user_error


class ModelLimits:
    """What each model takes, from cluster.yaml; read again when the file changes.

    Without a file, or with a model it does not name, the schema's own defaults count.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._read_ns = 0
        self._pools: tuple[Pool, ...] = ()

    def pool(self, model: str | None) -> Pool | None:
        """The pool that serves `model`; None for a name that no pool has (`auto`, an endpoint elsewhere)."""
        self._reload()
        return next((pool for pool in self._pools if model in pool.names), None)

    def media(self, model: str | None) -> Media:
        pool = self.pool(model)
        return pool.media if pool else Media()

    def _reload(self) -> None:
        if self._path is None:
            return
        try:
            written_ns = self._path.stat().st_mtime_ns
            if written_ns != self._read_ns:
                self._read_ns = written_ns
                self._pools = load(self._path).pools
        except (OSError, ConfigError) as error:  # what was read before stays effective
            log.log_event("caps_not_read", path=str(self._path), error=str(error)[:300])


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
        page: str,
        key: str,
        answer: StreamedAnswer,
        history: Sequence[Message] = (),
        response_format: dict[str, Any] | None = None,
    ) -> None:
        """Asks after `history` and fills `answer`; an error is put there too, never raised."""
        try:
            messages, attached = await asyncio.to_thread(self._messages, text, files, sampling, history)
            request = sampling.build_request(messages, page, key, response_format)
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
