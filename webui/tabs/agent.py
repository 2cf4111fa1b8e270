"""The Agent tab: finds boxes, points or the next action for an instruction, and draws them on the screenshot."""

import asyncio
import html
from collections.abc import AsyncIterator
from typing import Any

import gradio as gr
from gradio.events import api

from manyeyes.config.gateway import Concurrency
from webui import samples
from webui.auth import uploads
from webui.chat import screenshot_agent
from webui.chat.chat_requester import ChatRequester, SamplingSettings
from webui.chat.completion_stream import Visitor
from webui.chat.screenshot_agent import AgentSession, AgentStep
from webui.chat.streamed_answer import answer_summary
from webui.files import attachments, decoders, images
from webui.i18n import N_, _
from webui.tabs import controls
from webui.theme import hint_html
from webui.user_error import UserError

EMPTY = N_("Add screenshots and describe the task. Each step uses the next screenshot.")
TASK = N_("Order 24 kg for Northlight Roasters")
NO_SCREENSHOT = N_("Add a screenshot first, or use the samples.")
UNCHANGED = (gr.skip(), gr.skip(), gr.skip(), gr.skip())
"""Gradio clears all outputs of a generator that ends without a yield."""


def build_agent_tab(requester: ChatRequester, concurrency: Concurrency) -> gr.Dropdown:
    """Builds the tab. Returns its model dropdown, which the page fills."""
    with gr.Row(elem_classes="two"):
        with gr.Column(elem_classes="inputs", scale=0, min_width=300):
            files = gr.File(
                label=_("Screenshots, in order"),
                file_count="multiple",
                file_types=list(attachments.IMAGE_TYPES),
                type="filepath",
                height=150,
            )
            sample = gr.Button(_("Use the samples"), size="sm", elem_classes="tool")
            model = controls.model_dropdown()
            mode = gr.Radio(
                [(_(mode), mode) for mode in screenshot_agent.AGENT_MODES],
                value=screenshot_agent.NEXT_ACTION,
                label=_("Output"),
            )
            instruction = gr.Textbox(label=_("Instruction"), placeholder=_(TASK), lines=2, max_lines=6)
            sampling = controls.sampling_controls(temperature=0.0, top_p=1.0, max_tokens=512)
        with gr.Column(elem_classes="outputs", min_width=300):
            with gr.Row(elem_classes="tools"):
                step = gr.Button(_("Next step"), variant="primary", size="sm")
                every = gr.Button(_("All steps"), size="sm", elem_classes="tool")
                again = gr.Button(_("Start over"), size="sm", elem_classes="tool")
            trail = gr.HTML(hint_html(_(EMPTY)), elem_classes="text-block")
            marked = gr.Image(
                label=_("The screenshot with the result"),
                interactive=False,
                format="png",
                height=420,
                buttons=["download", "fullscreen"],
            )
            answer = gr.Code(label=_("The answer"), language="json", interactive=False, lines=4, max_lines=12)
    session = gr.State(None)
    events = AgentHandlers(requester)
    inputs, shown = [session, files, model, mode, instruction, *sampling], [session, trail, marked, answer]
    running = controls.queued_event(concurrency.agent, "agent")
    step.click(events.step, inputs, shown, **running)
    every.click(events.every, inputs, shown, **running)
    again.click(events.over, None, shown, **controls.IMMEDIATE_EVENT)
    files.change(lambda: None, None, [session], **controls.IMMEDIATE_EVENT)
    sample.click(events.samples, None, [files, instruction], **controls.IMMEDIATE_EVENT)
    events.mount_api(concurrency)
    return model


class AgentHandlers:
    def __init__(self, requester: ChatRequester) -> None:
        self._requester = requester

    async def step(
        self, request: gr.Request, session: AgentSession | None, files: list[str] | None, *inputs: Any
    ) -> AsyncIterator[tuple[Any, ...]]:
        if not files:
            gr.Info(_(NO_SCREENSHOT))
            yield UNCHANGED
            return
        session = session if session is not None and session.next_file else AgentSession(list(files))
        async for update in self._run_step(request, session, *inputs):
            yield update

    async def every(
        self, request: gr.Request, session: AgentSession | None, files: list[str] | None, *inputs: Any
    ) -> AsyncIterator[tuple[Any, ...]]:
        session = AgentSession(list(files or []))
        async for update in self.step(request, session, files, *inputs):
            yield update
        while session.next_file and not session.ended:
            async for update in self._run_step(request, session, *inputs):
                yield update

    def over(self) -> tuple[Any, ...]:
        return None, hint_html(_(EMPTY)), None, ""

    def samples(self) -> tuple[list[str], str]:
        return [str(path) for path in samples.screens()], _(TASK)

    def mount_api(self, concurrency: Concurrency) -> None:
        async def ground(
            request: gr.Request,
            file: Any,
            instruction: str,
            mode: str = screenshot_agent.FIND_BOXES,
            model: str = "auto",
            max_tokens: int = 512,
        ) -> dict[str, Any]:
            """Analyses one screenshot: {"text", "marks", "action", "width", "height", ...}."""
            controls.check_choice("mode", mode, screenshot_agent.AGENT_MODES)
            session = AgentSession(controls.file_paths([file]))
            width, height = await asyncio.to_thread(images.image_size, uploads.resolve_upload(session.files[0]))
            sampling = SamplingSettings(model, "", 0.0, 1.0, max_tokens)
            result = await self._send_step(session, controls.own_conversation(request), mode, instruction, sampling)
            return screenshot_agent.step_facts(result) | {"width": width, "height": height}

        api(ground, api_name="ground", concurrency_limit=concurrency.api_clients)

    async def _run_step(
        self, request: gr.Request, session: AgentSession, model: str | None, mode: str, instruction: str, *sampling: Any
    ) -> AsyncIterator[tuple[Any, ...]]:
        uploads.hold_files(request.session_hash or "", "agent", session.files)
        yield session, _steps_html(session, in_progress=True), gr.skip(), gr.skip()
        try:
            step = await self._send_step(
                session, controls.own_conversation(request), mode, instruction, SamplingSettings(model, *sampling)
            )
            marked = await asyncio.to_thread(_marked_screenshot, step)
        except UserError as failure:
            session.broken = True
            gr.Warning(str(failure))
            yield session, _steps_html(session), gr.skip(), gr.skip()
            return
        yield session, _steps_html(session), marked, step.answer.rendered()[1]

    async def _send_step(
        self, session: AgentSession, by: Visitor, mode: str, instruction: str, sampling: SamplingSettings
    ) -> AgentStep:
        """Sends the next screenshot and adds the step to `session`. Raises UserError if the file is not an upload."""
        file = session.next_file
        assert file
        step = AgentStep(uploads.resolve_upload(file))
        prompt = screenshot_agent.agent_prompt(mode, instruction, session.steps)
        await self._requester.send(prompt, [file], sampling, by, step.answer)
        session.steps.append(step)
        return step


def _marked_screenshot(step: AgentStep) -> str:
    """Draws the marks into a file next to the screenshot, so that both have the same owner and lifetime."""
    to = uploads.derived_path(step.file, f"{step.file.stem}-found.png")
    screenshot = decoders.read_image(step.file)
    to.write_bytes(images.encode_image(screenshot_agent.draw_marks(screenshot, step.marks), ".png"))
    return str(to)


def _steps_html(session: AgentSession, in_progress: bool = False) -> str:
    rows = [
        f"<li><b>{html.escape(step.file.name)}</b>: {html.escape(screenshot_agent.describe_step(step))}"
        f"<span>{html.escape(answer_summary(step.answer))}</span></li>"
        for step in session.steps
    ]
    if in_progress:
        rows.append("<li>" + _("in progress") + " …</li>")
    return f'<ol class="attempts" role="status">{"".join(rows)}</ol>'
