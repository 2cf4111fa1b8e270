"""What the Chat tab's events do. Holds the answers on their way, by visitor."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import gradio as gr

from manyeyes.config.pools import Media
from webui.auth import upload_ownership
from webui.chat import message_builder, stream_resume
from webui.chat.message_builder import Message
from webui.chat.model_limits import Caps
from webui.chat.sampling_settings import Knobs
from webui.chat.streamed_answer import Answer, note
from webui.cluster.gateway_client import KEY_HEADER, Gateway
from webui.error_handler import trouble
from webui.files import attachments
from webui.files.attachments import Attached
from webui.i18n.language import say
from webui.settings import Settings
from webui.ui import redraw_throttle

Update = tuple[Any, Any]  # for the chat and for the box
IDLE: dict[str, Any] = {"submit_btn": True, "stop_btn": False}
BUSY: dict[str, Any] = {"submit_btn": False, "stop_btn": True}
EMPTY = {"text": "", "files": []}


@dataclass
class Run:
    """One answer on its way; `stop` ends it. `instead`: what the chat shows since another event took the answer away."""

    stop: bool = False
    instead: list[Message] | None = None


@dataclass
class Turn:
    """What one question is made of: the chat before it, and what was typed or edited."""

    before: list[Message]
    text: str
    files: list[str]
    given_back: bool = True
    """The box holds it again when nothing was answered."""

    def shown(self, files: list[str] | None = None) -> list[Message]:
        return [*self.before, message_builder.user_message(self.text, self.files if files is None else files)]


class Replies:
    def __init__(self, settings: Settings, gateway: Gateway, caps: Caps) -> None:
        self._settings = settings
        self._gateway = gateway
        self._caps = caps
        self._runs: dict[str, Run] = {}

    async def to_box(
        self, request: gr.Request, typed: dict[str, Any], history: list[Message], *knobs: Any
    ) -> AsyncIterator[Update]:
        if not typed["text"].strip() and not typed["files"]:
            yield gr.skip(), gr.skip()  # Gradio empties every output of a generator that ends without a yield
            return
        turn = Turn(message_builder.answered(history), typed["text"], typed["files"])
        async for update in self._reply(turn, EMPTY, Knobs(*knobs), request):
            yield update

    async def to_sample(
        self, request: gr.Request, chosen: gr.SelectData, history: list[Message], *knobs: Any
    ) -> AsyncIterator[Update]:
        files = [file["path"] for file in chosen.value.get("files") or []]
        turn = Turn(message_builder.answered(history), chosen.value["text"], files, given_back=False)
        async for update in self._reply(turn, None, Knobs(*knobs), request):
            yield update

    async def again(
        self, request: gr.Request, of: gr.RetryData, typed: dict[str, Any], history: list[Message], *knobs: Any
    ) -> AsyncIterator[Update]:
        index = of.index if isinstance(of.index, int) else of.index[0]
        question = message_builder.sent(history[index])
        same = typed["text"].strip() == question["text"].strip()
        turn = Turn(message_builder.answered(history[:index]), question["text"], question["files"], same)
        async for update in self._reply(turn, EMPTY if same else None, Knobs(*knobs), request):
            yield update

    async def edited(
        self, request: gr.Request, change: gr.EditData, history: list[Message], *knobs: Any
    ) -> AsyncIterator[Update]:
        """Asks again from the question that was edited on; what followed it is gone."""
        index = change.index if isinstance(change.index, int) else change.index[0]
        *before, question = message_builder.edited(history, index, str(change.value))
        again = message_builder.sent(question)
        turn = Turn(before, again["text"], again["files"], given_back=False)
        async for update in self._reply(turn, None, Knobs(*knobs), request):
            yield update

    def deleted(self, request: gr.Request, of: gr.UndoData, history: list[Message]) -> Update:
        """The last question and its answer go; the question is back in the box."""
        index = of.index if isinstance(of.index, int) else of.index[0]
        gone = next((message for message in history[index:] if message["role"] == "user"), None)
        left = message_builder.without(history, index)
        upload_ownership.need(request.session_hash or "", "box", message_builder.files_of(gone) if gone else ())
        self.leave(request, left)
        return left, _box(message_builder.sent(gone) if gone else None, IDLE)

    def stop(self, request: gr.Request) -> None:
        if run := self._runs.get(request.session_hash or ""):
            run.stop = True

    def new(self, request: gr.Request) -> Update:
        self.leave(request, [])
        return [], gr.update(**IDLE)

    def leave(self, request: gr.Request, shown: list[Message]) -> None:
        """The chat shows something else: an answer on its way is nobody's any more, and neither are the files of the chat before."""
        keep(request, shown)
        if run := self._runs.get(request.session_hash or ""):
            run.stop, run.instead = True, shown

    async def once(
        self, text: str, files: list[str], history: list[Message], knobs: Knobs, page: str, key: str
    ) -> tuple[Answer, list[Attached]]:
        """For programs: one answer, not drawn. A failure is in the answer."""
        answer = Answer(asked_s=time.monotonic())
        attached: list[Attached] = []
        await self._ask(Turn(history, text, files), knobs, page, key, answer, attached)
        return answer, attached

    async def _reply(
        self, turn: Turn, box: dict[str, Any] | None, knobs: Knobs, request: gr.Request
    ) -> AsyncIterator[Update]:
        """Answers `turn`; `box` is what the box holds from the start on (None: as it is)."""
        page = request.session_hash or ""
        if page in self._runs:
            gr.Warning(say("The last answer is still coming. Press stop first."))
            yield gr.skip(), gr.skip()
            return
        run = self._runs[page] = Run()
        keep(request, turn.shown())
        answer = Answer(asked_s=time.monotonic())
        attached: list[Attached] = []
        key = request.headers.get(KEY_HEADER) or ""
        asking = asyncio.create_task(self._ask(turn, knobs, page, key, answer, attached))
        try:
            yield [*turn.shown(), message_builder.assistant_message("", "")], _box(box, BUSY)
            drawn, pause_s = (0, 0), redraw_throttle.SHORTEST_S
            while not asking.done() and not run.stop:
                due_s = time.monotonic() + pause_s
                await asyncio.wait({asking}, timeout=pause_s)
                pause_s = redraw_throttle.next_pause(pause_s, time.monotonic() - due_s)
                come = len(answer.text), len(answer.thought)
                if come != drawn and not run.stop:
                    drawn = come
                    yield [*_asked(turn, attached), *_drawn(answer, "")], gr.skip()
            answer.stopped = not asking.done()
        finally:  # also when the visitor closed the page: the gateway sees the connection close, and the engine stops
            asking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asking
            if self._runs.get(page) is run:
                del self._runs[page]
        if run.instead is not None:  # said again, because a drawing on its way may reach the browser after that event's
            yield run.instead, _box(None, IDLE)
            return
        nothing = answer.failure is not None and not answer.text
        given_back = (
            {"text": turn.text, "files": turn.files} if nothing and turn.given_back and box is not None else None
        )
        if given_back:  # put there by the page, of which the box itself says nothing
            upload_ownership.need(page, "box", turn.files)
        said = [one.said for one in attached]
        yield [*_asked(turn, attached), *_drawn(answer, note(answer, *said), ended=True)], _box(given_back, IDLE)

    async def _ask(
        self, turn: Turn, knobs: Knobs, page: str, key: str, answer: Answer, attached: list[Attached]
    ) -> None:
        try:
            caps = self._caps.media(knobs.model)
            attached += await asyncio.to_thread(attachments.prepared, turn.files, knobs.limits, caps)
            history = turn.shown([str(one.path) for one in attached])
            if self._caps.pool(knobs.model):
                message_builder.check_count(history, str(knobs.model), caps.images_per_prompt, caps.videos_per_prompt)
            messages = await asyncio.to_thread(self._messages, history, knobs, caps)
            question = knobs.question(messages, page, key)
        except Exception as error:
            attached.clear()
            answer.failure = trouble(error)
            return
        answer.tokens_vision = sum(one.tokens for one in attached)
        answer.asked_s = time.monotonic()  # reading files is not the engine's time
        await stream_resume.ask(self._gateway, question, answer)

    def _messages(self, history: list[Message], knobs: Knobs, caps: Media) -> list[Message]:
        sent_as = attachments.sent_as(knobs.limits, caps)
        message_builder.check_size(history, knobs.system, self._settings.max_body_bytes, sent_as)
        return message_builder.to_openai(history, knobs.system, sent_as)


def keep(request: gr.Request, shown: list[Message]) -> None:
    """The files that the open chat of this visit may send again."""
    files = [path for message in shown for path in message_builder.files_of(message)]
    upload_ownership.need(request.session_hash or "", "chat", files)


def _asked(turn: Turn, attached: list[Attached]) -> list[Message]:
    """The chat with the question as it was sent: a PDF as its pages."""
    return turn.shown([str(one.path) for one in attached]) if attached else turn.shown()


def _drawn(answer: Answer, note: str, ended: bool = False) -> list[Message]:
    thought, text = answer.shown()
    if (ended or text) and answer.thought_s is None:
        answer.thought_s = answer.total_s or 0.0
    return [
        *([message_builder.thought_message(thought, answer.thought_s)] if thought else []),
        message_builder.assistant_message(text, note),
    ]


def _box(value: dict[str, Any] | None, buttons: dict[str, Any]) -> dict[str, Any]:
    return gr.update(**buttons) if value is None else gr.update(value=value, **buttons)
