"""One question with its files, outside of a chat: what Documents, Compare, Individual and Agent ask."""

from __future__ import annotations

import asyncio
from typing import Any

from webui import attach, conversation, going_on
from webui.answer import Answer
from webui.caps import Caps
from webui.going_on import Asks
from webui.knobs import Knobs
from webui.trouble import trouble


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
        await going_on.ask(self._asks, question, answer)

    def _messages(self, text: str, files: list[str], knobs: Knobs, answer: Answer) -> list[dict[str, Any]]:
        caps = self._caps.media(knobs.model)
        attached = attach.prepared(files, knobs.limits, caps)
        answer.tokens_vision = sum(one.tokens for one in attached)
        history = [conversation.user_message(text, [str(one.path) for one in attached])]
        if self._caps.pool(knobs.model):
            conversation.check_count(history, str(knobs.model), caps.images_per_prompt, caps.videos_per_prompt)
        sent_as = attach.sent_as(knobs.limits, caps)
        conversation.check_size(history, knobs.system, self._max_body_bytes, sent_as)
        return conversation.to_openai(history, knobs.system, sent_as)
