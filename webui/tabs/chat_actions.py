"""Actions around the chat: save, import, estimate tokens, show code, take a photo. Also the chat API for programs."""

import asyncio
import time
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.events import api

from webui.auth import uploads
from webui.chat import chat_requester, chat_storage, message_builder
from webui.chat.chat_handlers import IDLE_BUTTONS, ReplyHandlers, hold_chat_files
from webui.chat.chat_requester import ChatRequester, ModelLimits, SamplingSettings
from webui.chat.completion_stream import ChatRequest, Visitor
from webui.chat.message_builder import Message
from webui.chat.streamed_answer import StreamedAnswer, answer_facts
from webui.files import attachments
from webui.files.attachments import AttachmentCost
from webui.i18n import _
from webui.tabs import controls
from webui.user_error import UserError

EXAMPLE_REQUEST = ChatRequest("auto", [{"role": "user", "content": "Hello"}], "", 0.7, 0.8, 1024)


class ChatActions:
    def __init__(self, replies: ReplyHandlers, model_limits: ModelLimits) -> None:
        self._replies = replies
        self._model_limits = model_limits

    def pack(self, request: gr.Request, history: list[Message]) -> dict[str, Any]:
        hold_chat_files(request, history)
        return chat_storage.pack_chat(history)

    def open_chat(self, request: gr.Request, chat: Any) -> tuple[list[Message], Any]:
        history = chat_storage.unpack_chat(chat)
        self._replies.replace_chat(request, history)
        return history, gr.update(**IDLE_BUTTONS)

    def import_chat(self, request: gr.Request, file: str) -> tuple[Any, Any]:
        try:
            history = chat_storage.read_export(uploads.resolve_upload(file))
        except UserError as failure:
            gr.Warning(str(failure))
            return gr.skip(), gr.skip()
        self._replies.replace_chat(request, history)
        return history, gr.update(**IDLE_BUTTONS)

    async def estimate(
        self,
        request: gr.Request,
        typed: dict[str, Any],
        model: str | None,
        longest: float,
        per_s: float,
        frames: float,
    ) -> str:
        uploads.hold_files(request.session_hash or "", "box", typed.get("files") or [])
        sampling = SamplingSettings(model, longest=longest, frames_per_s=per_s, most_frames=frames)
        try:
            costs = await self.costs(typed.get("files") or [], sampling)
        except UserError as failure:
            return attachments.estimate_error_html(failure)
        return attachments.estimate_html(costs, typed.get("text") or "", self._model_limits.pool(model))

    async def costs(self, files: list[str], sampling: SamplingSettings) -> list[AttachmentCost]:
        """Estimates the cost of each file. Raises UserError."""
        if not files:
            return []
        return await asyncio.to_thread(
            attachments.estimate_costs, files, sampling.limits, self._model_limits.media(sampling.model)
        )

    def apply_preset(self, name: str, typed: dict[str, Any]) -> tuple[Any, ...]:
        preset = next(preset for preset in chat_requester.PRESETS if preset.name == name)
        empty = not typed["text"].strip()
        box = {"text": _(preset.prompt), "files": typed["files"]} if empty and preset.prompt else gr.skip()
        return _(preset.system), preset.temperature, preset.top_p, preset.max_tokens, box

    def save_markdown(self, history: list[Message]) -> dict[str, str] | None:
        return self._file(history, ".md", "text/markdown", chat_storage.export_markdown)

    def save_json(self, history: list[Message]) -> dict[str, str] | None:
        return self._file(history, ".json", "application/json", chat_storage.export_json)

    async def show_code(
        self, request: gr.Request, language: str, typed: dict[str, Any], history: list[Message], *sampling: Any
    ) -> str:
        try:
            question, names = await self._last(typed, history, SamplingSettings(*sampling))
        except UserError as failure:
            return f"# {failure}"
        return chat_storage.render_code(question, names, f"{page_origin(request)}/v1", language)

    async def save_request(
        self, typed: dict[str, Any], history: list[Message], *sampling: Any
    ) -> dict[str, str] | None:
        try:
            question, _ = await self._last(typed, history, SamplingSettings(*sampling))
        except UserError as failure:
            gr.Warning(str(failure))
            return None
        return {"name": "request.json", "kind": "application/json", "text": chat_storage.request_json(question)}

    def attach_snapshot(self, file: str | None, typed: dict[str, Any]) -> tuple[Any, Any]:
        if not file:
            return gr.skip(), gr.skip()
        uploads.record_created_file(Path(file).resolve())
        return {"text": typed["text"], "files": [*typed["files"], file]}, None

    async def _last(
        self, typed: dict[str, Any], history: list[Message], sampling: SamplingSettings
    ) -> tuple[ChatRequest, list[str]]:
        """Returns the request in the question box as it would be sent; with an empty box, the last request as sent."""
        if typed["text"].strip() or typed["files"]:
            turns = [
                *message_builder.drop_unanswered(history),
                message_builder.user_message(typed["text"], typed["files"]),
            ]
        else:
            turns = list(history)
            while turns and turns[-1]["role"] != "user":
                turns.pop()
        return await asyncio.to_thread(self._as_sent, turns, sampling)

    def _as_sent(self, turns: list[Message], sampling: SamplingSettings) -> tuple[ChatRequest, list[str]]:
        if not turns:
            return EXAMPLE_REQUEST, []
        *before, last = turns
        files = [str(path) for path in message_builder.message_files(last)]
        media = self._model_limits.media(sampling.model)
        sent = [str(attachment.path) for attachment in attachments.prepare_attachments(files, sampling.limits, media)]
        whole = [*before, message_builder.user_message(message_builder.message_text(last), sent)]
        names = [path.name for message in whole for path in message_builder.message_files(message)]
        sent_as = attachments.sent_file_resolver(sampling.limits, media)
        messages = message_builder.openai_messages(whole, sampling.system, sent_as)
        return sampling.build_request(messages, Visitor()), names

    def _file(self, history: list[Message], suffix: str, kind: str, make: Any) -> dict[str, str] | None:
        if not history:
            gr.Info(_("There is nothing to save yet. Ask a question first."))
            return None
        name = chat_storage.chat_title(history)
        plain = "".join(letter if letter.isalnum() else "-" for letter in name).strip("-") or "chat"
        return {"name": f"{plain}{suffix}", "kind": kind, "text": make(history, name)}


def page_origin(request: gr.Request) -> str:
    """Returns the address of the page as the user's browser knows it."""
    headers = request.headers
    host = headers.get("x-forwarded-host") or headers.get("host") or "localhost:8080"
    scheme = headers.get("x-forwarded-proto") or "http"
    return f"{scheme}://{host}"


Files = list[Any]
"""Results of gradio_client.handle_file()."""


def mount_chat_api(requester: ChatRequester, model_limits: ModelLimits, events: ChatActions, at_once: int) -> None:
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
        """Returns an answer: {"text", "thinking", "engine", ...}. `history`: the "messages" of a chat saved as JSON."""
        sampling = SamplingSettings(
            model, system, temperature, top_p, max_tokens, seed, longest, frames_per_s, most_frames
        )
        answer = StreamedAnswer(started_s=time.monotonic())
        by, before = controls.own_conversation(request), _import_history(history)
        await requester.send(text, controls.file_paths(files), sampling, by, answer, before)
        reasoning, shown = answer.rendered()
        return {
            "text": shown,
            "thinking": reasoning,
            "files": [attachment.note for attachment in answer.attached],
            **answer_facts(answer),
        }

    async def estimate_tokens(
        files: Files, model: str = "auto", longest: int = 1280, frames_per_s: float = 2.0, most_frames: int = 16
    ) -> dict[str, Any]:
        """Estimates the tokens of the files: {"vision_tokens", "max_model_len", "files"}."""
        sampling = SamplingSettings(model, longest=longest, frames_per_s=frames_per_s, most_frames=most_frames)
        return attachments.estimate_facts(
            await events.costs(controls.file_paths(files), sampling), model_limits.pool(model)
        )

    async def chat_code(
        request: gr.Request, language: str, text: str, files: Files | None = None, model: str = "auto"
    ) -> str:
        """Returns the request as code. `language`: curl, Python or JavaScript."""
        controls.check_choice("language", language, chat_storage.CODE_LANGUAGES)
        return await events.show_code(request, language, {"text": text, "files": controls.file_paths(files)}, [], model)

    async def chat_markdown(messages: list[dict[str, Any]], title: str = "Chat") -> str:
        """Returns the messages of a saved chat as Markdown."""
        return chat_storage.export_markdown(_import_history(messages), title)

    for function, name in (
        (chat, "chat"),
        (estimate_tokens, "estimate"),
        (chat_code, "chat_code"),
        (chat_markdown, "chat_markdown"),
    ):
        api(function, api_name=name, concurrency_limit=at_once, concurrency_id="answers-by-api")


def _import_history(messages: list[dict[str, Any]] | None) -> list[dict[str, Any]]:
    try:
        return [chat_storage.import_message(message) for message in messages or []]
    except (UserError, KeyError, TypeError, ValueError):
        raise gr.Error(_("history: expected the messages of a chat that was saved as JSON.")) from None
