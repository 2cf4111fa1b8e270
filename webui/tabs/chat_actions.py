"""What the buttons around the chat do: keep, bring back, estimate, show as code, take a picture."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import gradio as gr

from manyeyes.config.pools import Pool
from webui.auth import upload_ownership, upload_paths
from webui.chat import chat_export, chat_storage, code_view, message_builder, presets
from webui.chat.chat_handlers import IDLE, Replies, keep
from webui.chat.chat_request import Question
from webui.chat.message_builder import Message
from webui.chat.model_limits import Caps
from webui.chat.sampling_settings import Knobs
from webui.files import attachments, token_estimate
from webui.files.attachments import Cost
from webui.i18n.language import say
from webui.settings import Settings
from webui.user_error import Failure

NOTHING = Question("auto", [{"role": "user", "content": "Hello"}], "", 0.7, 0.8, 1024)


class ChatEvents:
    def __init__(self, settings: Settings, replies: Replies, caps: Caps) -> None:
        self._settings = settings
        self._replies = replies
        self._caps = caps

    def slim(self, request: gr.Request, history: list[Message]) -> dict[str, Any]:
        keep(request, history)
        return chat_storage.slim(history)

    def opened(self, request: gr.Request, chat: Any) -> tuple[list[Message], Any]:
        found = chat_storage.whole(chat)
        self._replies.leave(request, found)
        return found, gr.update(**IDLE)

    def brought(self, request: gr.Request, file: str) -> tuple[Any, Any]:
        try:
            found = chat_export.read(upload_paths.own(file))
        except Failure as failure:
            gr.Warning(str(failure))
            return gr.skip(), gr.skip()
        self._replies.leave(request, found)
        return found, gr.update(**IDLE)

    async def estimate(
        self,
        request: gr.Request,
        typed: dict[str, Any],
        model: str | None,
        longest: float,
        per_s: float,
        frames: float,
    ) -> str:
        upload_ownership.need(request.session_hash or "", "box", typed.get("files") or [])
        knobs = Knobs(model, longest=longest, frames_per_s=per_s, most_frames=frames)
        try:
            found = await self.costs(typed.get("files") or [], knobs)
        except Failure as failure:
            return token_estimate.failed(failure)
        return token_estimate.line(found, typed.get("text") or "", self._caps.pool(model))

    async def costs(self, files: list[str], knobs: Knobs) -> list[Cost]:
        """Raises Failure."""
        if not files:
            return []
        return await asyncio.to_thread(attachments.costs, files, knobs.limits, self._caps.media(knobs.model))

    def pool(self, model: str | None) -> Pool | None:
        return self._caps.pool(model)

    def preset(self, name: str, typed: dict[str, Any]) -> tuple[Any, ...]:
        found = presets.named(name)
        used = (
            {"text": say(found.prompt), "files": typed["files"]} if not typed["text"].strip() and found.prompt else None
        )
        return say(found.system), found.temperature, found.top_p, found.max_tokens, used or gr.skip()

    def markdown(self, history: list[Message]) -> dict[str, str] | None:
        return self._file(history, ".md", "text/markdown", chat_export.to_markdown)

    def json(self, history: list[Message]) -> dict[str, str] | None:
        return self._file(history, ".json", "application/json", chat_export.to_json)

    async def code(
        self, request: gr.Request, language: str, typed: dict[str, Any], history: list[Message], *knobs: Any
    ) -> str:
        try:
            question, names = await self._last(typed, history, Knobs(*knobs))
        except Failure as failure:
            return f"# {failure}"
        return code_view.code(question, names, f"{origin(request)}/v1", language)

    async def request(self, typed: dict[str, Any], history: list[Message], *knobs: Any) -> dict[str, str] | None:
        try:
            question, _ = await self._last(typed, history, Knobs(*knobs))
        except Failure as failure:
            gr.Warning(str(failure))
            return None
        return {"name": "request.json", "kind": "application/json", "text": code_view.request_json(question)}

    def snapped(self, file: str | None, typed: dict[str, Any]) -> tuple[Any, Any]:
        if not file:
            return gr.skip(), gr.skip()
        upload_ownership.made(Path(file).resolve())
        return {"text": typed["text"], "files": [*typed["files"], file]}, None

    async def _last(self, typed: dict[str, Any], history: list[Message], knobs: Knobs) -> tuple[Question, list[str]]:
        """What is in the box as it would be sent; with an empty box, the last request as it was sent."""
        if typed["text"].strip() or typed["files"]:
            asked = [*message_builder.answered(history), message_builder.user_message(typed["text"], typed["files"])]
        else:
            asked = list(history)
            while asked and asked[-1]["role"] != "user":
                asked.pop()
        return await asyncio.to_thread(self._as_sent, asked, knobs)

    def _as_sent(self, asked: list[Message], knobs: Knobs) -> tuple[Question, list[str]]:
        if not asked:
            return NOTHING, []
        *before, last = asked
        files = [str(path) for path in message_builder.files_of(last)]
        caps = self._caps.media(knobs.model)
        sent = [str(one.path) for one in attachments.prepared(files, knobs.limits, caps)]
        whole = [*before, message_builder.user_message(message_builder.text_of(last), sent)]
        names = [path.name for message in whole for path in message_builder.files_of(message)]
        return knobs.question(
            message_builder.to_openai(whole, knobs.system, attachments.sent_as(knobs.limits, caps)), ""
        ), names

    def _file(self, history: list[Message], suffix: str, kind: str, make: Any) -> dict[str, str] | None:
        if not history:
            gr.Info(say("There is nothing to save yet: ask something first."))
            return None
        name = chat_storage.title(history)
        plain = "".join(letter if letter.isalnum() else "-" for letter in name).strip("-") or "chat"
        return {"name": f"{plain}{suffix}", "kind": kind, "text": make(history, name)}


def origin(request: gr.Request) -> str:
    """The page's own address, as its visitor's browser knows it."""
    headers = request.headers
    host = headers.get("x-forwarded-host") or headers.get("host") or "localhost:8080"
    scheme = headers.get("x-forwarded-proto") or "http"
    return f"{scheme}://{host}"
