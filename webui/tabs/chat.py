"""The Chat tab: text, pictures and videos in, a streamed answer out, and the line that says who answered."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import gradio as gr

from webui import conversation, media, samples
from webui.answer import Answer, note
from webui.conversation import Message
from webui.failure import Failure
from webui.gateway import KEY_HEADER, Gateway, Question
from webui.settings import Settings

REDRAW_S = 0.05  # an answer is drawn at most 20 times a second; each drawing costs a message to the browser
CONCURRENCY = 64  # answers at once, over all visitors; each is one idle coroutine

# page.js shows and hides the panel; page.css keeps it open on a wide screen and closed on a narrow one.
SIDE_TOGGLE = '<button type="button" class="side-toggle" data-side="chat-side">{}</button>'

Update = tuple[Any, Any]  # for the chat and for the box


@dataclass(frozen=True)
class ChatTab:
    """What the page refreshes from outside the tab."""

    model: gr.Dropdown
    chat: gr.Chatbot


@dataclass
class Run:
    """One answer on its way; `stop` ends it, `forget` also empties the chat."""

    stop: bool = False
    forget: bool = False


def tab(settings: Settings, gateway: Gateway) -> ChatTab:
    with gr.Row(elem_classes="tab-body", equal_height=False):
        with gr.Column(elem_classes="main", min_width=300):
            chat = gr.Chatbot(
                elem_id="chat",
                label="Chat",
                show_label=False,
                container=False,
                height="100%",
                layout="bubble",
                buttons=["copy"],
                feedback_options=None,
                placeholder=settings.greeting,
                examples=samples.for_chat(),
            )
            box = gr.MultimodalTextbox(
                elem_id="question",
                label="Your question",
                show_label=False,
                container=False,
                placeholder="Ask something; drop or paste pictures and videos here",
                sources=["upload"],
                file_count="multiple",
                file_types=media.SUFFIXES,
                max_plain_text_length=1_000_000,  # a long pasted text stays text
                lines=1,
                max_lines=8,
                autofocus=True,
            )
            with gr.Row(elem_classes="tools"):
                gr.HTML(SIDE_TOGGLE.format("Settings"))
                new = gr.Button("New chat", size="sm", elem_id="new-chat")
        with gr.Column(elem_id="chat-side", elem_classes="side", scale=0, min_width=300):
            gr.HTML(SIDE_TOGGLE.format("Close"), elem_classes="close")
            model = gr.Dropdown(
                label="Model",
                choices=[],
                allow_custom_value=True,  # the list is each visitor's own; another copy of the page has not seen it
                elem_id="model",
            )
            system = gr.Textbox(
                label="System prompt", placeholder="You are a careful reader of documents.", lines=3, max_lines=10
            )
            temperature = gr.Slider(0, 2, value=0.7, step=0.05, label="Temperature")
            top_p = gr.Slider(0.05, 1, value=0.8, step=0.05, label="Top-p")
            max_tokens = gr.Slider(16, 8192, value=1024, step=16, label="Max tokens")

    replies = Replies(settings, gateway)
    knobs: list[gr.components.Component] = [model, system, temperature, top_p, max_tokens]
    answering: dict[str, Any] = {
        "outputs": [chat, box],
        "concurrency_limit": CONCURRENCY,
        "concurrency_id": "answers",
        "show_progress": "hidden",
        "api_visibility": "private",
    }
    at_once: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
    box.submit(replies.to_box, [box, chat, *knobs], **answering)
    chat.retry(replies.again, [box, chat, *knobs], **answering)
    chat.example_select(replies.to_sample, [chat, *knobs], **answering)
    box.stop(replies.stop, None, None, **at_once)
    new.click(replies.new, None, [chat, box], **at_once)
    return ChatTab(model=model, chat=chat)


IDLE: dict[str, Any] = {"submit_btn": True, "stop_btn": False}
BUSY: dict[str, Any] = {"submit_btn": False, "stop_btn": True}
EMPTY = {"text": "", "files": []}


class Replies:
    """What the tab's events do. Holds the answers on their way, by visitor."""

    def __init__(self, settings: Settings, gateway: Gateway) -> None:
        self._settings = settings
        self._gateway = gateway
        self._runs: dict[str, Run] = {}

    async def to_box(
        self, request: gr.Request, typed: dict[str, Any], history: list[Message], *knobs: Any
    ) -> AsyncIterator[Update]:
        if not typed["text"].strip() and not typed["files"]:
            return
        question = conversation.user_message(typed["text"], typed["files"])
        async for update in self._reply([*conversation.answered(history), question], EMPTY, knobs, request):
            yield update

    async def to_sample(
        self, request: gr.Request, chosen: gr.SelectData, history: list[Message], *knobs: Any
    ) -> AsyncIterator[Update]:
        files = [file["path"] for file in chosen.value.get("files") or []]
        question = conversation.user_message(chosen.value["text"], files)
        async for update in self._reply([*conversation.answered(history), question], None, knobs, request):
            yield update

    async def again(
        self, request: gr.Request, of: gr.RetryData, typed: dict[str, Any], history: list[Message], *knobs: Any
    ) -> AsyncIterator[Update]:
        index = of.index if isinstance(of.index, int) else of.index[0]
        question = history[index]
        same = typed["text"].strip() == conversation.sent(question)["text"].strip()
        before = [*conversation.answered(history[:index]), question]
        async for update in self._reply(before, EMPTY if same else None, knobs, request):
            yield update

    def stop(self, request: gr.Request) -> None:
        if run := self._runs.get(request.session_hash or ""):
            run.stop = True

    def new(self, request: gr.Request) -> Update:
        if run := self._runs.get(request.session_hash or ""):
            run.stop = run.forget = True
        return [], gr.update(**IDLE)

    async def _reply(
        self, history: list[Message], box: dict[str, Any] | None, knobs: tuple[Any, ...], request: gr.Request
    ) -> AsyncIterator[Update]:
        """Answers the last message of `history`; `box` is what the box holds from the start on (None: as it is)."""
        page = request.session_hash or ""
        if page in self._runs:
            gr.Warning("The last answer is still coming. Press stop first.")
            yield gr.skip(), gr.skip()
            return
        run = self._runs[page] = Run()
        answer = Answer(asked_s=time.monotonic())
        key = request.headers.get(KEY_HEADER) or ""
        asking = asyncio.create_task(self._ask(history, knobs, page, key, answer))
        try:
            yield [*history, conversation.assistant_message("", "")], _box(box, BUSY)
            drawn = ""
            while not asking.done() and not run.stop:
                await asyncio.wait({asking}, timeout=REDRAW_S)
                if answer.text != drawn and not run.stop:
                    drawn = answer.text
                    yield [*history, conversation.assistant_message(drawn, "")], gr.skip()
            answer.stopped = not asking.done()
        finally:  # also when the visitor closed the page: the gateway sees the connection close, and the engine stops
            asking.cancel()
            del self._runs[page]
        if run.forget:  # said again here, because a drawing on its way may reach the browser after new()'s answer
            yield [], _box(None, IDLE)
            return
        given_back = conversation.sent(history[-1]) if answer.failure and not answer.text and box is not None else None
        yield [*history, conversation.assistant_message(answer.text, note(answer))], _box(given_back, IDLE)

    async def _ask(self, history: list[Message], knobs: tuple[Any, ...], page: str, key: str, answer: Answer) -> None:
        model, system, temperature, top_p, max_tokens = knobs
        try:
            if not model:
                raise Failure("No model is chosen.", "Choose one in the settings, then press retry.")
            conversation.check_size(history, system, self._settings.max_body_bytes)
            messages = await asyncio.to_thread(conversation.to_openai, history, system)
        except Failure as failure:
            answer.failure = failure
            return
        answer.asked_s = time.monotonic()  # reading files is not the engine's time
        question = Question(model, messages, page, temperature, top_p, int(max_tokens), key)
        await self._gateway.ask(question, answer)


def _box(value: dict[str, Any] | None, buttons: dict[str, Any]) -> dict[str, Any]:
    return gr.update(**buttons) if value is None else gr.update(value=value, **buttons)
