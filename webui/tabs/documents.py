"""The Documents tab: many pictures or PDFs read page by page over all engines, as text or as fields of a JSON schema."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from typing import Any

import gradio as gr
from gradio.events import api

from manyeyes.config.webui import AtOnce
from webui import samples
from webui.auth import upload_ownership
from webui.chat.sampling_settings import Knobs
from webui.chat.single_request import Asker
from webui.cluster.gateway_client import KEY_HEADER
from webui.files import attachments, batch, batch_export, media_parts, page_reader
from webui.files.batch import Batch
from webui.i18n.language import say
from webui.tabs.chat_api import paths
from webui.tabs.sampling import model_choice, sampling
from webui.ui import progress_bar
from webui.user_error import Failure

MOST_PAGES_AT_ONCE = 32
UNCHANGED = (gr.skip(), gr.skip(), gr.skip())
"""Gradio empties every output of a generator that ends without a yield."""

SAVE = "(file) => { window.manyeyesSave(file); }"
FILES = {
    "CSV": ("results.csv", "text/csv", batch_export.to_csv),
    "JSON": ("results.json", "application/json", batch_export.to_json),
    "Markdown": ("results.md", "text/markdown", batch_export.to_markdown),
}


def tab(asker: Asker, at_once: AtOnce) -> gr.Dropdown:
    """The model's dropdown, to be filled."""
    with gr.Row(elem_classes="two"):
        with gr.Column(elem_classes="asks", scale=0, min_width=300):
            files = gr.File(
                label=say("Pictures and PDFs"),
                file_count="multiple",
                file_types=[*media_parts.PICTURES, attachments.PDF],
                type="filepath",
                height=150,
            )
            sample = gr.Button(say("Use the samples"), size="sm", elem_classes="tool")
            model = model_choice()
            task = gr.Dropdown(
                label=say("Task"), choices=[(say(name), name) for name in page_reader.PROMPTS], value="Transcribe"
            )
            prompt = gr.Textbox(
                label=say("Prompt for each page"), value=say(page_reader.PROMPTS["Transcribe"]), lines=3, max_lines=8
            )
            with gr.Accordion(say("JSON schema"), open=False) as folded:
                schema = gr.Code(
                    language="json", label=say("Each page becomes an object of this form"), lines=6, max_lines=14
                )
            pages_at_once = gr.Slider(1, MOST_PAGES_AT_ONCE, value=8, step=1, label=say("Pages at once"))
            knobs = sampling(temperature=0.0, top_p=1.0, max_tokens=2048)
        with gr.Column(elem_classes="shows", min_width=300):
            with gr.Row(elem_classes="tools"):
                go = gr.Button(say("Read"), variant="primary", size="sm")
                stop = gr.Button(say("Stop"), size="sm", elem_classes="tool")
                retry = gr.Button(say("Retry failed"), size="sm", elem_classes="tool")
                saves = {
                    name: gr.Button(say("Save {name}", name=name), size="sm", elem_classes="tool") for name in FILES
                }
            how_far = gr.HTML(progress_bar.bar(None, False))
            table = gr.Dataframe(
                headers=batch_export.columns(),
                datatype=["number", "str", "str", "str", "str", "str", "str"],
                column_widths=["44px", "150px", "84px", "330px", "90px", "76px", "110px"],
                interactive=False,
                wrap=True,
                show_label=False,
                elem_classes="results",
                buttons=[],
            )
            gr.HTML(f"<p>{say('Choose a page in the table to see its whole answer.')}</p>", elem_classes="said")
            whole = gr.Code(label=say("The whole answer"), interactive=False, lines=6, max_lines=24, visible=False)
    pages = gr.State(None)
    saved = gr.JSON(visible="hidden")
    events = Documents(asker)
    shown = [pages, how_far, table]
    quiet: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_name": "page", "api_visibility": "private"}
    running: dict[str, Any] = {
        "concurrency_limit": at_once.documents,
        "concurrency_id": "documents",
        "show_progress": "hidden",
        "api_name": "page",
        "api_visibility": "private",
    }
    asked = [model, prompt, schema, pages_at_once, *knobs]
    go.click(events.read, [pages, files, *asked], shown, **running)
    retry.click(events.again, [pages, *asked], shown, **running)
    stop.click(events.stop, [pages], None, **quiet)
    sample.click(lambda: [str(path) for path in samples.documents()], None, [files], **quiet)
    task.input(events.task, [task], [prompt, schema, folded], **quiet)
    table.select(events.whole, [pages], [whole], **quiet)
    for name, button in saves.items():
        button.click(_saves(name), [pages], [saved], **quiet).then(None, [saved], None, js=SAVE)
    events.mount(at_once.programs)
    return model


class Documents:
    def __init__(self, asker: Asker) -> None:
        self._asker = asker

    async def read(
        self, request: gr.Request, before: Batch | None, files: list[str] | None, *asked: Any
    ) -> AsyncIterator[tuple[Any, ...]]:
        if _runs(before):
            gr.Warning(say("These pages are being read. Press Stop first."))
            yield UNCHANGED
            return
        if not files:
            gr.Info(say("Add pictures or a PDF first, or use the samples."))
            yield UNCHANGED
            return
        upload_ownership.need(request.session_hash or "", "documents", files)
        try:
            found = Batch(await asyncio.to_thread(batch.pages_of, files))
        except Failure as failure:
            gr.Warning(str(failure))
            yield UNCHANGED
            return
        async for update in self._run(request, found, *asked):
            yield update

    async def again(self, request: gr.Request, found: Batch | None, *asked: Any) -> AsyncIterator[tuple[Any, ...]]:
        if found is None or _runs(found) or not batch.again(found):
            gr.Info(say("There is no failed page to read again."))
            yield UNCHANGED
            return
        async for update in self._run(request, found, *asked):
            yield update

    def stop(self, found: Batch | None) -> None:
        if found is not None:
            found.stop = True

    def task(self, name: str) -> tuple[Any, Any, Any]:
        fields = name == "Fields as JSON"
        return say(page_reader.PROMPTS[name]), page_reader.SCHEMA if fields else "", gr.update(open=fields)

    def whole(self, found: Batch | None, chosen: gr.SelectData) -> Any:
        row = chosen.index[0] if isinstance(chosen.index, list | tuple) else chosen.index
        if found is None or row >= len(found.pages):
            return gr.update(visible=False)
        page = found.pages[row]
        return gr.update(value=page.failure or page.text, label=page.name, visible=True)

    def mount(self, calls_at_once: int) -> None:
        async def documents(
            request: gr.Request,
            files: list[Any],
            prompt: str = page_reader.PROMPTS["Transcribe"],
            model: str = "auto",
            schema: str = "",
            at_once: int = 8,
            max_tokens: int = 2048,
        ) -> dict[str, Any]:
            """Reads all pages of all files: {"pages": [{"page", "name", "state", "text", "fields", "error", ...}]}."""
            try:
                found = Batch(await asyncio.to_thread(batch.pages_of, paths(files)))
                form = batch.schema_of(schema)
            except Failure as failure:
                raise gr.Error(str(failure)) from None
            knobs = Knobs(model, "", 0.0, 1.0, max_tokens)
            key = request.headers.get(KEY_HEADER) or ""
            reads = page_reader.reads(self._asker, prompt, knobs, form, uuid.uuid4().hex, key)
            async for _ in batch.run(found, reads, min(at_once, MOST_PAGES_AT_ONCE), form is not None):
                pass
            return {"pages": [batch_export.as_dict(page) for page in found.pages]}

        api(documents, api_name="documents", concurrency_limit=calls_at_once)

    async def _run(
        self,
        request: gr.Request,
        found: Batch,
        model: str | None,
        prompt: str,
        schema: str,
        at_once: float,
        *knobs: Any,
    ) -> AsyncIterator[tuple[Any, ...]]:
        try:
            form = batch.schema_of(schema or "")
        except Failure as failure:
            gr.Warning(str(failure))
            yield UNCHANGED
            return
        key = request.headers.get(KEY_HEADER) or ""
        visit = f"{request.session_hash or ''}-{uuid.uuid4().hex[:8]}"
        reads = page_reader.reads(self._asker, prompt, Knobs(model, *knobs), form, visit, key)
        yield found, progress_bar.bar(found, True), batch_export.rows(found)
        async for _ in batch.run(found, reads, int(at_once), form is not None):
            yield gr.skip(), progress_bar.bar(found, True), batch_export.rows(found)
        yield found, progress_bar.bar(found, False), batch_export.rows(found)


def _runs(found: Batch | None) -> bool:
    return found is not None and found.begun_s is not None and found.ended_s is None


def _saves(name: str) -> Any:
    file, kind, make = FILES[name]

    def save(found: Batch | None) -> dict[str, str] | None:
        if found is None or not found.pages:
            gr.Info(say("There is nothing to save yet: read some pages first."))
            return None
        return {"name": file, "kind": kind, "text": make(found)}

    return save
