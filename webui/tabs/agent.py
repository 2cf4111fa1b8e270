"""The Agent tab: a screenshot and an instruction in; boxes, points and the next action out, drawn on the picture."""

from __future__ import annotations

import asyncio
import html
import uuid
from collections.abc import AsyncIterator
from typing import Any

import gradio as gr
from gradio.events import api

from manyeyes.config.webui import AtOnce
from webui import samples
from webui.auth import upload_ownership, upload_paths
from webui.chat import screenshot_agent
from webui.chat.sampling_settings import Knobs
from webui.chat.screenshot_agent import Step, Walk
from webui.chat.single_request import Asker
from webui.chat.streamed_answer import line
from webui.cluster.gateway_client import KEY_HEADER
from webui.files import grounding, images, media_parts
from webui.i18n.language import later, say
from webui.tabs.chat_api import paths
from webui.tabs.sampling import model_choice, sampling
from webui.user_error import Failure

EMPTY = later("Add screenshots and say what to do. Each step takes the next screenshot.")
TASK = later("Order 24 kg for Northlight Roasters")
ADD = later("Add a screenshot first, or use the samples.")
UNCHANGED = (gr.skip(), gr.skip(), gr.skip(), gr.skip())
"""Gradio empties every output of a generator that ends without a yield."""


def tab(asker: Asker, at_once: AtOnce) -> gr.Dropdown:
    """The model's dropdown, to be filled."""
    with gr.Row(elem_classes="two"):
        with gr.Column(elem_classes="asks", scale=0, min_width=300):
            files = gr.File(
                label=say("Screenshots, in order"),
                file_count="multiple",
                file_types=list(media_parts.PICTURES),
                type="filepath",
                height=150,
            )
            sample = gr.Button(say("Use the samples"), size="sm", elem_classes="tool")
            model = model_choice()
            mode = gr.Radio(
                [(say(mode), mode) for mode in screenshot_agent.MODES],
                value=screenshot_agent.ACT,
                label=say("What to give"),
            )
            what = gr.Textbox(label=say("Instruction"), placeholder=say(TASK), lines=2, max_lines=6)
            knobs = sampling(temperature=0.0, top_p=1.0, max_tokens=512)
        with gr.Column(elem_classes="shows", min_width=300):
            with gr.Row(elem_classes="tools"):
                step = gr.Button(say("Next step"), variant="primary", size="sm")
                every = gr.Button(say("All steps"), size="sm", elem_classes="tool")
                again = gr.Button(say("Start over"), size="sm", elem_classes="tool")
            trail = gr.HTML(_empty(), elem_classes="said")
            picture = gr.Image(
                label=say("The screenshot with what was found"),
                interactive=False,
                format="png",
                height=420,
                buttons=["download", "fullscreen"],
            )
            found = gr.Code(label=say("The answer"), language="json", interactive=False, lines=4, max_lines=12)
    walk = gr.State(None)
    events = Agent(asker)
    private: dict[str, Any] = {"show_progress": "hidden", "api_name": "page", "api_visibility": "private"}
    asked, shown = [walk, files, model, mode, what, *knobs], [walk, trail, picture, found]
    running: dict[str, Any] = {"concurrency_limit": at_once.agent, "concurrency_id": "agent"} | private
    step.click(events.step, asked, shown, **running)
    every.click(events.every, asked, shown, **running)
    again.click(events.over, None, shown, queue=False, **private)
    files.change(lambda: None, None, [walk], queue=False, **private)
    sample.click(events.samples, None, [files, what], queue=False, **private)
    events.mount(at_once)
    return model


class Agent:
    def __init__(self, asker: Asker) -> None:
        self._asker = asker

    async def step(
        self, request: gr.Request, walk: Walk | None, files: list[str] | None, *asked: Any
    ) -> AsyncIterator[tuple[Any, ...]]:
        if not files:
            gr.Info(say(ADD))
            yield UNCHANGED
            return
        walk = walk if walk is not None and walk.next_file else Walk(list(files))
        async for update in self._one(request, walk, *asked):
            yield update

    async def every(
        self, request: gr.Request, walk: Walk | None, files: list[str] | None, *asked: Any
    ) -> AsyncIterator[tuple[Any, ...]]:
        if not files:
            gr.Info(say(ADD))
            yield UNCHANGED
            return
        walk = Walk(list(files))
        while walk.next_file:
            async for update in self._one(request, walk, *asked):
                yield update
            if walk.steps[-1].answer.failure or (walk.steps[-1].action or {}).get("action") == "done":
                break

    def over(self) -> tuple[Any, ...]:
        return None, _empty(), None, ""

    def samples(self) -> tuple[list[str], str]:
        return [str(path) for path in samples.screens()], say(TASK)

    def mount(self, at_once: AtOnce) -> None:
        async def ground(
            request: gr.Request,
            file: Any,
            instruction: str,
            mode: str = screenshot_agent.FIND,
            model: str = "auto",
            max_tokens: int = 512,
        ) -> dict[str, Any]:
            """One screenshot: {"text", "marks", "action", "width", "height", ...}."""
            if mode not in screenshot_agent.MODES:
                raise gr.Error(
                    say("{name} wants one of: {choices}.", name="mode", choices=", ".join(screenshot_agent.MODES))
                )
            walk = Walk(paths([file]))
            visit, key = uuid.uuid4().hex, request.headers.get(KEY_HEADER) or ""
            try:
                width, height = await asyncio.to_thread(images.size, upload_paths.own(walk.files[0]))
                made = await self._asked(walk, visit, key, mode, instruction, Knobs(model, "", 0.0, 1.0, max_tokens))
            except Failure as failure:
                raise gr.Error(str(failure)) from None
            return screenshot_agent.as_dict(made) | {"width": width, "height": height}

        api(ground, api_name="ground", concurrency_limit=at_once.programs)

    async def _one(
        self, request: gr.Request, walk: Walk, model: str | None, mode: str, what: str, *knobs: Any
    ) -> AsyncIterator[tuple[Any, ...]]:
        upload_ownership.need(request.session_hash or "", "agent", walk.files)
        visit = f"{request.session_hash or ''}-{uuid.uuid4().hex[:8]}"
        yield walk, _trail(walk, asking=True), gr.skip(), gr.skip()
        try:
            step = await self._asked(
                walk, visit, request.headers.get(KEY_HEADER) or "", mode, what, Knobs(model, *knobs)
            )
            picture = await asyncio.to_thread(_drawn, step)
        except Failure as failure:
            gr.Warning(str(failure))
            yield walk, _trail(walk), gr.skip(), gr.skip()
            return
        yield walk, _trail(walk), picture, step.answer.shown()[1]

    async def _asked(self, walk: Walk, visit: str, key: str, mode: str, what: str, knobs: Knobs) -> Step:
        """Asks about the next screenshot and puts the step into `walk`. Raises Failure for a file that is no upload."""
        file = walk.next_file
        assert file
        step = Step(upload_paths.own(file))
        await self._asker.ask(screenshot_agent.prompt(mode, what, walk.steps), [file], knobs, visit, key, step.answer)
        walk.steps.append(step)
        return step


def _empty() -> str:
    return f'<p class="empty">{say(EMPTY)}</p>'


def _drawn(step: Step) -> str:
    """Beside the screenshot, so that it is gone with it and is nobody else's."""
    to = upload_paths.beside(step.file, f"{step.file.stem}-found.png")
    with images.room(step.file):
        to.write_bytes(images.encoded(grounding.drawn(images.read(step.file), step.marks), ".png"))
    return str(to)


def _trail(walk: Walk, asking: bool = False) -> str:
    rows = [
        f"<li><b>{html.escape(step.file.name)}</b>: {html.escape(screenshot_agent.sentence(step))}"
        f"<span>{html.escape(line(step.answer))}</span></li>"
        for step in walk.steps
    ]
    if asking:
        rows.append(f"<li>{say('asking')} …</li>")
    return f'<ol class="attempts" role="status">{"".join(rows)}</ol>'
