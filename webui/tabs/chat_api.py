"""The Chat tab for programs: gradio_client's /models, /chat, /estimate, /chat_code and /chat_markdown."""

from __future__ import annotations

import uuid
from typing import Any

import gradio as gr
from gradio.events import api

from webui.chat import chat_export, code_view
from webui.chat.chat_handlers import Replies
from webui.chat.sampling_settings import Knobs
from webui.chat.streamed_answer import facts
from webui.cluster.gateway_client import KEY_HEADER
from webui.files import token_estimate
from webui.i18n.language import say
from webui.tabs.chat_actions import ChatEvents
from webui.user_error import Failure

Files = list[Any]
"""What gradio_client.handle_file() gives."""


def mount(replies: Replies, events: ChatEvents, at_once: int) -> None:
    async def chat(
        request: gr.Request,
        text: str,
        files: Files | None = None,
        model: str = "auto",
        system: str = "",
        temperature: float = 0.7,
        top_p: float = 0.8,
        max_tokens: int = 1024,
        seed: int | None = None,
        longest: int = 1280,
        frames_per_s: float = 2.0,
        most_frames: int = 16,
        history: list[dict[str, Any]] | None = None,
    ) -> dict[str, Any]:
        """One answer: {"text", "thinking", "engine", ...}. `history`: what chat_json-files hold as "messages"."""
        knobs = Knobs(model, system, temperature, top_p, max_tokens, seed, longest, frames_per_s, most_frames)
        key = request.headers.get(KEY_HEADER) or ""
        before = unpacked(history)
        answer, attached = await replies.once(text, paths(files), before, knobs, uuid.uuid4().hex, key)
        thought, shown = answer.shown()
        return {"text": shown, "thinking": thought, "files": [one.said for one in attached], **facts(answer)}

    async def estimate_tokens(
        files: Files, model: str = "auto", longest: int = 1280, frames_per_s: float = 2.0, most_frames: int = 16
    ) -> dict[str, Any]:
        """What the files will cost: {"vision_tokens", "max_model_len", "files"}."""
        knobs = Knobs(model, longest=longest, frames_per_s=frames_per_s, most_frames=most_frames)
        try:
            return token_estimate.facts(await events.costs(paths(files), knobs), events.pool(model))
        except Failure as failure:
            raise gr.Error(str(failure)) from None

    async def chat_code(
        request: gr.Request, language: str, text: str, files: Files | None = None, model: str = "auto"
    ) -> str:
        """The request as code; `language`: curl, Python or JavaScript."""
        if language not in code_view.LANGUAGES:
            raise gr.Error(
                say("{name} wants one of: {choices}.", name="language", choices=", ".join(code_view.LANGUAGES))
            )
        return await events.code(request, language, {"text": text, "files": paths(files)}, [], model)

    async def chat_markdown(messages: list[dict[str, Any]], title: str = "Chat") -> str:
        """A saved chat's messages as Markdown."""
        return chat_export.to_markdown(unpacked(messages), title)

    for function, name in (
        (chat, "chat"),
        (estimate_tokens, "estimate"),
        (chat_code, "chat_code"),
        (chat_markdown, "chat_markdown"),
    ):
        api(function, api_name=name, concurrency_limit=at_once, concurrency_id="answers-by-api")


def paths(files: Files | None) -> list[str]:
    """Where uploads lie; which of them may be named is checked where they are read."""
    return [str(file["path"]) if isinstance(file, dict) else str(file) for file in files or []]


def unpacked(messages: list[dict[str, Any]] | None) -> list[dict[str, Any]]:
    try:
        return [chat_export.unpacked(message) for message in messages or []]
    except (Failure, KeyError, TypeError, ValueError):
        raise gr.Error(say("history wants messages as a chat saved as JSON has them.")) from None
