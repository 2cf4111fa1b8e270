"""Event handlers of the Chat tab. They track the running answer of each visit."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import gradio as gr

from webui.auth import uploads
from webui.chat import message_builder
from webui.chat.chat_requester import ChatRequester, SamplingSettings
from webui.chat.completion_stream import Visitor
from webui.chat.message_builder import Message
from webui.chat.streamed_answer import StreamedAnswer, answer_note
from webui.cluster.gateway_client import KEY_HEADER
from webui.i18n import _

ChatUpdate = tuple[Any, Any]  # for the chat and for the question box
IDLE_BUTTONS: dict[str, Any] = {"submit_btn": True, "stop_btn": False}
BUSY_BUTTONS: dict[str, Any] = {"submit_btn": False, "stop_btn": True}
EMPTY_BOX = {"text": "", "files": []}
SHORTEST_REDRAW_S = 0.05  # 20 times a second; each redraw sends a message to the browser
LONGEST_REDRAW_S = 2.0
LATE_REDRAW_S = 0.03
"""A redraw that is later than this shows that the page is overloaded."""


@dataclass
class ReplyTask:
    """A running answer. `stop` cancels it. `replacement`: what the chat shows if another event replaced the answer."""

    stop: bool = False
    replacement: list[Message] | None = None


@dataclass
class ChatTurn:
    """A question: the chat before it, its text and its files."""

    history: list[Message]
    text: str
    files: list[str]
    restore_box: bool = True
    """The question is put back into the box if there is no answer."""

    def rendered(self, files: list[str] | None = None) -> list[Message]:
        return [*self.history, message_builder.user_message(self.text, self.files if files is None else files)]


class ReplyHandlers:
    def __init__(self, requester: ChatRequester) -> None:
        self._requester = requester
        self._replies: dict[str, ReplyTask] = {}

    async def submit(
        self, request: gr.Request, typed: dict[str, Any], history: list[Message], *sampling: Any
    ) -> AsyncIterator[ChatUpdate]:
        if not typed["text"].strip() and not typed["files"]:
            yield gr.skip(), gr.skip()  # Gradio clears all outputs of a generator that ends without a yield
            return
        turn = ChatTurn(message_builder.drop_unanswered(history), typed["text"], typed["files"])
        async for update in self._reply(turn, EMPTY_BOX, SamplingSettings(*sampling), request):
            yield update

    async def send_sample(
        self, request: gr.Request, chosen: gr.SelectData, history: list[Message], *sampling: Any
    ) -> AsyncIterator[ChatUpdate]:
        files = [file["path"] for file in chosen.value.get("files") or []]
        turn = ChatTurn(message_builder.drop_unanswered(history), chosen.value["text"], files, restore_box=False)
        async for update in self._reply(turn, None, SamplingSettings(*sampling), request):
            yield update

    async def retry(
        self, request: gr.Request, of: gr.RetryData, typed: dict[str, Any], history: list[Message], *sampling: Any
    ) -> AsyncIterator[ChatUpdate]:
        index = _message_index(of)
        question = message_builder.box_value(history[index])
        same = typed["text"].strip() == question["text"].strip()
        turn = ChatTurn(message_builder.drop_unanswered(history[:index]), question["text"], question["files"], same)
        async for update in self._reply(turn, EMPTY_BOX if same else None, SamplingSettings(*sampling), request):
            yield update

    async def edit(
        self, request: gr.Request, change: gr.EditData, history: list[Message], *sampling: Any
    ) -> AsyncIterator[ChatUpdate]:
        """Sends the edited question. Later messages are dropped."""
        *history, question = message_builder.replace_question(history, _message_index(change), str(change.value))
        value = message_builder.box_value(question)
        turn = ChatTurn(history, value["text"], value["files"], restore_box=False)
        async for update in self._reply(turn, None, SamplingSettings(*sampling), request):
            yield update

    def undo(self, request: gr.Request, of: gr.UndoData, history: list[Message]) -> ChatUpdate:
        """Removes the last question and its answer, and puts the question back into the box."""
        index = _message_index(of)
        question = next((message for message in history[index:] if message["role"] == "user"), None)
        remaining = message_builder.remove_question(history, index)
        uploads.hold_files(
            request.session_hash or "", "box", message_builder.message_files(question) if question else ()
        )
        self.replace_chat(request, remaining)
        return remaining, _box_update(message_builder.box_value(question) if question else None, IDLE_BUTTONS)

    def stop(self, request: gr.Request) -> None:
        if reply := self._replies.get(request.session_hash or ""):
            reply.stop = True

    def new_chat(self, request: gr.Request) -> ChatUpdate:
        self.replace_chat(request, [])
        return [], gr.update(**IDLE_BUTTONS)

    def replace_chat(self, request: gr.Request, shown: list[Message]) -> None:
        """Shows another chat. Stops the running answer and releases the files of the previous chat."""
        hold_chat_files(request, shown)
        if reply := self._replies.get(request.session_hash or ""):
            reply.stop, reply.replacement = True, shown

    async def _reply(
        self, turn: ChatTurn, box: dict[str, Any] | None, sampling: SamplingSettings, request: gr.Request
    ) -> AsyncIterator[ChatUpdate]:
        """Answers `turn`. `box` is the new value of the question box (None: unchanged)."""
        page = request.session_hash or ""
        if page in self._replies:
            gr.Warning(_("The last answer is still being generated. Press stop first."))
            yield gr.skip(), gr.skip()
            return
        reply = self._replies[page] = ReplyTask()
        hold_chat_files(request, turn.rendered())
        answer = StreamedAnswer(started_s=time.monotonic())
        by = Visitor(page, request.headers.get(KEY_HEADER) or "")
        sending = asyncio.create_task(self._requester.send(turn.text, turn.files, sampling, by, answer, turn.history))
        try:
            yield [*turn.rendered(), message_builder.assistant_message("", "")], _box_update(box, BUSY_BUTTONS)
            drawn, pause_s = (0, 0), SHORTEST_REDRAW_S
            while not sending.done() and not reply.stop:
                due_s = time.monotonic() + pause_s
                await asyncio.wait({sending}, timeout=pause_s)
                pause_s = next_redraw_pause(pause_s, time.monotonic() - due_s)
                received = len(answer.text), len(answer.reasoning)
                if received != drawn and not reply.stop:
                    drawn = received
                    yield [*_shown_question(turn, answer), *_shown_answer(answer, "")], gr.skip()
            answer.stopped = not sending.done()
        finally:  # also when the user closes the page: the gateway sees the closed connection, and the engine stops
            sending.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await sending
            if self._replies.get(page) is reply:
                del self._replies[page]
        if reply.replacement is not None:  # sent again: a redraw may reach the browser after that event's update
            yield reply.replacement, _box_update(None, IDLE_BUTTONS)
            return
        nothing = answer.failure is not None and not answer.text
        restore_box = (
            {"text": turn.text, "files": turn.files} if nothing and turn.restore_box and box is not None else None
        )
        if restore_box:  # set by the page, so the box sends no change event
            uploads.hold_files(page, "box", turn.files)
        note = answer_note(answer, *(attachment.note for attachment in answer.attached))
        shown = [*_shown_question(turn, answer), *_shown_answer(answer, note, ended=True)]
        yield shown, _box_update(restore_box, IDLE_BUTTONS)


def _message_index(event: gr.RetryData | gr.EditData | gr.UndoData) -> int:
    return event.index if isinstance(event.index, int) else event.index[0]


def hold_chat_files(request: gr.Request, shown: list[Message]) -> None:
    """Holds the files that the open chat of this visit may send again."""
    files = [path for message in shown for path in message_builder.message_files(message)]
    uploads.hold_files(request.session_hash or "", "chat", files)


def _shown_question(turn: ChatTurn, answer: StreamedAnswer) -> list[Message]:
    """Returns the chat with the question as sent: a PDF as its pages."""
    return turn.rendered([str(attachment.path) for attachment in answer.attached] or None)


def _shown_answer(answer: StreamedAnswer, note: str, ended: bool = False) -> list[Message]:
    reasoning, text = answer.rendered()
    if (ended or text) and answer.reasoning_s is None:
        answer.reasoning_s = answer.total_s or 0.0
    return [
        *([message_builder.reasoning_message(reasoning, answer.reasoning_s)] if reasoning else []),
        message_builder.assistant_message(text, note),
    ]


def _box_update(value: dict[str, Any] | None, buttons: dict[str, Any]) -> dict[str, Any]:
    return gr.update(**buttons) if value is None else gr.update(value=value, **buttons)


def next_redraw_pause(pause_s: float, late_s: float) -> float:
    """Returns the pause before the next redraw, from the last pause and its delay (in seconds)."""
    next_pause_s = pause_s * 1.6 if late_s > LATE_REDRAW_S else pause_s * 0.85
    return min(LONGEST_REDRAW_S, max(SHORTEST_REDRAW_S, next_pause_s))
