"""One question with its files, outside of a chat: what Documents, Compare, Individual and Agent ask."""

from __future__ import annotations

import asyncio
from typing import Any

from webui.chat import message_builder, stream_resume
from webui.chat.model_limits import Caps
from webui.chat.sampling_settings import Knobs
from webui.chat.stream_resume import Asks
from webui.chat.streamed_answer import Answer
from webui.error_handler import trouble
from webui.files import attachments


class Asker:
    """Asks the gateway, or whoever `asks` is."""

    def __init__(self, asks: Asks, caps: Caps, max_body_bytes: int) -> None:
        self._asks = asks
        self._caps = caps
        self._max_body_bytes = max_body_bytes

    async def ask(
        self, text: str, files: list[str], knobs: Knobs, page: str, key: str, answer: Answer, **more: Any
    ) -> None:
        """Fills `answer`; a failure is put there too, never raised."""
        try:
            messages = await asyncio.to_thread(self._messages, text, files, knobs, answer)
            question = knobs.question(messages, page, key, **more)
        except Exception as error:
            answer.failure = trouble(error)
            return
        answer.asked_s = (
            asyncio.get_running_loop().time()
        )  # time.monotonic()'s clock; reading files is not the engine's time
        await stream_resume.ask(self._asks, question, answer)

    def _messages(self, text: str, files: list[str], knobs: Knobs, answer: Answer) -> list[dict[str, Any]]:
        caps = self._caps.media(knobs.model)
        attached = attachments.prepared(files, knobs.limits, caps)
        answer.tokens_vision = sum(one.tokens for one in attached)
        history = [message_builder.user_message(text, [str(one.path) for one in attached])]
        if self._caps.pool(knobs.model):
            message_builder.check_count(history, str(knobs.model), caps.images_per_prompt, caps.videos_per_prompt)
        sent_as = attachments.sent_as(knobs.limits, caps)
        message_builder.check_size(history, knobs.system, self._max_body_bytes, sent_as)
        return message_builder.to_openai(history, knobs.system, sent_as)
