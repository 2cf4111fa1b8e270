"""One question with its files, outside of a chat: what Documents, Compare, Individual and Agent ask."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from manyeyes.config.loader import ConfigError, load
from manyeyes.config.pools import Media, Pool
from webui import log
from webui.chat import completion_stream, message_builder
from webui.chat.completion_stream import CompletionBackend
from webui.chat.sampling_settings import SamplingSettings
from webui.chat.streamed_answer import StreamedAnswer
from webui.files import attachments
from webui.user_error import as_user_error


class ChatRequester:
    """Asks the gateway, or whoever `asks` is."""

    def __init__(self, backend: CompletionBackend, media: ModelLimits, max_body_bytes: int) -> None:
        self._backend = backend
        self._model_limits = media
        self._max_body_bytes = max_body_bytes

    async def ask(
        self,
        text: str,
        files: list[str],
        sampling: SamplingSettings,
        page: str,
        key: str,
        answer: StreamedAnswer,
        **more: Any,
    ) -> None:
        """Fills `answer`; a failure is put there too, never raised."""
        try:
            messages = await asyncio.to_thread(self._messages, text, files, sampling, answer)
            request = sampling.build_request(messages, page, key, **more)
        except Exception as error:
            answer.failure = as_user_error(error)
            return
        answer.started_s = (
            asyncio.get_running_loop().time()
        )  # time.monotonic()'s clock; reading files is not the engine's time
        await completion_stream.stream_with_resume(self._backend, request, answer)

    def _messages(
        self, text: str, files: list[str], sampling: SamplingSettings, answer: StreamedAnswer
    ) -> list[dict[str, Any]]:
        media = self._model_limits.media(sampling.model)
        attached = attachments.prepare_attachments(files, sampling.limits, media)
        answer.vision_tokens_estimate = sum(attachment.tokens for attachment in attached)
        history = [message_builder.user_message(text, [str(attachment.path) for attachment in attached])]
        if self._model_limits.pool(sampling.model):
            message_builder.check_media_count(
                history, str(sampling.model), media.images_per_prompt, media.videos_per_prompt
            )
        sent_as = attachments.sent_file_resolver(sampling.limits, media)
        message_builder.check_request_size(history, sampling.system, self._max_body_bytes, sent_as)
        return message_builder.openai_messages(history, sampling.system, sent_as)


class ModelLimits:
    """Without a file, or with a model it does not name, the schema's own defaults count."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._read_ns = 0
        self._pools: tuple[Pool, ...] = ()

    def pool(self, model: str | None) -> Pool | None:
        """The pool that serves `model`; None where it is not told (`auto`, an endpoint elsewhere)."""
        self._look()
        return next((pool for pool in self._pools if model in pool.names), None)

    def media(self, model: str | None) -> Media:
        pool = self.pool(model)
        return pool.media if pool else Media()

    def _look(self) -> None:
        if self._path is None:
            return
        try:
            written_ns = self._path.stat().st_mtime_ns
            if written_ns != self._read_ns:
                self._read_ns = written_ns
                self._pools = load(self._path).pools
        except (OSError, ConfigError) as error:  # what was read before stays in force
            log.log_event("caps_not_read", path=str(self._path), error=str(error)[:300])
