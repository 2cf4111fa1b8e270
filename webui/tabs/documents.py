"""The Documents tab: reads images and PDFs page by page on all engines, as text or as fields of a JSON schema."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import gradio as gr
from gradio.events import api

from manyeyes.config.gateway import Concurrency
from webui import samples
from webui.auth import uploads
from webui.chat.chat_requester import ChatRequester, SamplingSettings
from webui.files import attachments, batch, batch_report
from webui.files.batch import PageBatch
from webui.i18n import _
from webui.tabs import controls
from webui.user_error import UserError

MAX_CONCURRENT_PAGES = 32
UNCHANGED = (gr.skip(), gr.skip(), gr.skip())
"""Gradio clears all outputs of a generator that ends without a yield."""

EXPORTS = {
    "CSV": ("results.csv", "text/csv", batch_report.batch_csv),
    "JSON": ("results.json", "application/json", batch_report.batch_json),
    "Markdown": ("results.md", "text/markdown", batch_report.batch_markdown),
}


def build_documents_tab(requester: ChatRequester, concurrency: Concurrency) -> gr.Dropdown:
    """Builds the tab. Returns its model dropdown, which the page fills."""
    with gr.Row(elem_classes="two"):
        with gr.Column(elem_classes="inputs", scale=0, min_width=300):
            files = gr.File(
                label=_("Images and PDFs"),
                file_count="multiple",
                file_types=[*attachments.IMAGE_TYPES, attachments.PDF_SUFFIX],
                type="filepath",
                height=150,
            )
            sample = gr.Button(_("Use the samples"), size="sm", elem_classes="tool")
            model = controls.model_dropdown()
            task = gr.Dropdown(
                label=_("Task"), choices=[(_(name), name) for name in batch.READ_PROMPTS], value="Transcribe"
            )
            prompt = gr.Textbox(
                label=_("Prompt for each page"), value=_(batch.READ_PROMPTS["Transcribe"]), lines=3, max_lines=8
            )
            with gr.Accordion(_("JSON schema"), open=False) as folded:
                schema = gr.Code(
                    language="json", label=_("Each page is returned as an object of this form"), lines=6, max_lines=14
                )
            pages_at_once = gr.Slider(1, MAX_CONCURRENT_PAGES, value=8, step=1, label=_("Pages in parallel"))
            sampling = controls.sampling_controls(temperature=0.0, top_p=1.0, max_tokens=2048)
        with gr.Column(elem_classes="outputs", min_width=300):
            with gr.Row(elem_classes="tools"):
                go = gr.Button(_("Read"), variant="primary", size="sm")
                stop = gr.Button(_("Stop"), size="sm", elem_classes="tool")
                retry = gr.Button(_("Retry failed"), size="sm", elem_classes="tool")
                saves = {
                    name: gr.Button(_("Save {name}", name=name), size="sm", elem_classes="tool") for name in EXPORTS
                }
            how_far = gr.HTML(batch_report.progress_html(None, False))
            table = gr.Dataframe(
                headers=[_(name) for name in batch_report.TABLE_COLUMNS],
                datatype=["number", "str", "str", "str", "str", "str", "str"],
                column_widths=["44px", "150px", "84px", "330px", "90px", "76px", "110px"],
                interactive=False,
                wrap=True,
                show_label=False,
                elem_classes="results",
                buttons=[],
            )
            gr.HTML(
                "<p>" + _("Choose a page in the table to see its whole answer.") + "</p>", elem_classes="text-block"
            )
            whole = gr.Code(label=_("The whole answer"), interactive=False, lines=6, max_lines=24, visible=False)
    pages = gr.State(None)
    saved = gr.JSON(visible="hidden")
    events = DocumentsHandlers(requester)
    shown = [pages, how_far, table]
    running = controls.queued_event(concurrency.documents, "documents")
    inputs = [model, prompt, schema, pages_at_once, *sampling]
    go.click(events.read, [pages, files, *inputs], shown, **running)
    retry.click(events.again, [pages, *inputs], shown, **running)
    stop.click(events.stop, [pages], None, **controls.IMMEDIATE_EVENT)
    sample.click(lambda: [str(path) for path in samples.documents()], None, [files], **controls.IMMEDIATE_EVENT)
    task.input(events.task, [task], [prompt, schema, folded], **controls.IMMEDIATE_EVENT)
    table.select(events.whole, [pages], [whole], **controls.IMMEDIATE_EVENT)
    for name, button in saves.items():
        controls.save_on_click(button, _save_handler(name), [pages], saved)
    events.mount_api(concurrency.api_clients)
    return model


class DocumentsHandlers:
    def __init__(self, requester: ChatRequester) -> None:
        self._requester = requester

    async def read(
        self, request: gr.Request, before: PageBatch | None, files: list[str] | None, *inputs: Any
    ) -> AsyncIterator[tuple[Any, ...]]:
        if _is_running(before):
            gr.Warning(_("These pages are being read. Press Stop first."))
            yield UNCHANGED
            return
        if not files:
            gr.Info(_("Add images or a PDF first, or use the samples."))
            yield UNCHANGED
            return
        uploads.hold_files(request.session_hash or "", "documents", files)
        try:
            page_batch = PageBatch(await asyncio.to_thread(batch.list_pages, files))
        except UserError as failure:
            gr.Warning(str(failure))
            yield UNCHANGED
            return
        async for update in self._run(request, page_batch, *inputs):
            yield update

    async def again(
        self, request: gr.Request, page_batch: PageBatch | None, *inputs: Any
    ) -> AsyncIterator[tuple[Any, ...]]:
        if page_batch is None or _is_running(page_batch) or not batch.requeue_unread(page_batch):
            gr.Info(_("There are no failed pages to retry."))
            yield UNCHANGED
            return
        async for update in self._run(request, page_batch, *inputs):
            yield update

    def stop(self, page_batch: PageBatch | None) -> None:
        if page_batch is not None:
            page_batch.stop = True

    def task(self, name: str) -> tuple[Any, Any, Any]:
        fields = name == "Fields as JSON"
        return _(batch.READ_PROMPTS[name]), batch.EXAMPLE_SCHEMA if fields else "", gr.update(open=fields)

    def whole(self, page_batch: PageBatch | None, chosen: gr.SelectData) -> Any:
        row = chosen.index[0] if isinstance(chosen.index, list | tuple) else chosen.index
        if page_batch is None or row >= len(page_batch.pages):
            return gr.update(visible=False)
        page = page_batch.pages[row]
        return gr.update(value=page.failure or page.text, label=page.name, visible=True)

    def mount_api(self, calls_at_once: int) -> None:
        async def documents(
            request: gr.Request,
            files: list[Any],
            prompt: str = batch.READ_PROMPTS["Transcribe"],
            model: str = "auto",
            schema: str = "",
            at_once: int = 8,
            max_tokens: int = 2048,
        ) -> dict[str, Any]:
            """Reads all pages of all files: {"pages": [{"page", "name", "state", "text", "fields", "error", ...}]}."""
            page_batch = PageBatch(await asyncio.to_thread(batch.list_pages, controls.file_paths(files)))
            form = batch.parse_schema(schema)
            sampling = SamplingSettings(model, "", 0.0, 1.0, max_tokens)
            reads = batch.make_page_reader(self._requester, prompt, sampling, form, controls.own_conversation(request))
            async for _update in batch.run_batch(
                page_batch, reads, min(at_once, MAX_CONCURRENT_PAGES), form is not None
            ):
                pass
            return {"pages": [batch_report.page_facts(page) for page in page_batch.pages]}

        api(documents, api_name="documents", concurrency_limit=calls_at_once)

    async def _run(
        self,
        request: gr.Request,
        page_batch: PageBatch,
        model: str | None,
        prompt: str,
        schema: str,
        at_once: float,
        *sampling: Any,
    ) -> AsyncIterator[tuple[Any, ...]]:
        try:
            form = batch.parse_schema(schema or "")
        except UserError as failure:
            gr.Warning(str(failure))
            yield UNCHANGED
            return
        chosen = SamplingSettings(model, *sampling)
        reads = batch.make_page_reader(self._requester, prompt, chosen, form, controls.own_conversation(request))
        yield page_batch, batch_report.progress_html(page_batch, True), batch_report.table_rows(page_batch)
        async for _update in batch.run_batch(page_batch, reads, int(at_once), form is not None):
            yield gr.skip(), batch_report.progress_html(page_batch, True), batch_report.table_rows(page_batch)
        yield page_batch, batch_report.progress_html(page_batch, False), batch_report.table_rows(page_batch)


def _is_running(page_batch: PageBatch | None) -> bool:
    return page_batch is not None and page_batch.started_s is not None and page_batch.ended_s is None


def _save_handler(name: str) -> Any:
    file, kind, make = EXPORTS[name]

    def save(page_batch: PageBatch | None) -> dict[str, str] | None:
        if page_batch is None or not page_batch.pages:
            gr.Info(_("There is nothing to save yet. Read some pages first."))
            return None
        return {"name": file, "kind": kind, "text": make(page_batch)}

    return save
