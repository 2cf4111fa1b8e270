"""Reads many pages in parallel. Each page is a separate request, so a failed page does not affect other pages."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from webui.auth import uploads
from webui.chat.chat_requester import ChatRequester, SamplingSettings
from webui.chat.completion_stream import Visitor
from webui.chat.streamed_answer import StreamedAnswer
from webui.files import attachments, decoders
from webui.i18n import N_, _
from webui.user_error import UserError

BATCH_UPDATE_S = 0.4
"""Interval between progress updates."""
MAX_BATCH_PAGES = 1000


class PageState(StrEnum):
    WAITING = "waiting"
    READING = "reading"
    DONE = "done"
    FAILED = "failed"
    STOPPED = "stopped"


@dataclass
class BatchPage:
    """An image, or a page of a PDF. Times are in seconds."""

    number: int
    file: Path
    pdf_page: int | None = None
    """Page of the PDF, from 0."""
    state: PageState = PageState.WAITING
    text: str = ""
    fields: dict[str, Any] | None = None
    """The parsed text, if the request has a schema."""
    failure: str = ""
    tries: int = 0
    engine: str = ""
    elapsed_s: float | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None

    @property
    def name(self) -> str:
        return (
            self.file.name
            if self.pdf_page is None
            else _("{name}, page {number}", name=self.file.name, number=self.pdf_page + 1)
        )


@dataclass
class PageBatch:
    pages: list[BatchPage] = field(default_factory=list)
    started_s: float | None = None
    ended_s: float | None = None
    done_before: int = 0
    """Pages that were done before this run started."""
    stop: bool = False

    def count(self, *states: PageState) -> int:
        return sum(page.state in states for page in self.pages)

    @property
    def pages_per_s(self) -> float | None:
        """Pages read in this run, divided by its duration so far."""
        if self.started_s is None:
            return None
        elapsed_s = (self.ended_s or time.monotonic()) - self.started_s
        done = self.count(PageState.DONE) - self.done_before
        return done / elapsed_s if elapsed_s > 0 and done else None


PageReader = Callable[[BatchPage], Awaitable[StreamedAnswer]]


def list_pages(files: list[str]) -> list[BatchPage]:
    """Returns all pages of all files, in order. Opens PDFs, so call it in a thread. Raises UserError."""
    pages: list[BatchPage] = []
    for name in files:
        path = uploads.resolve_upload(name)
        if attachments.is_pdf(path):
            pages += [BatchPage(0, path, number) for number in range(decoders.count_pages(path))]
        elif attachments.mime_type(path).startswith("image/"):
            pages.append(BatchPage(0, path))
        else:
            raise UserError(
                _("{name} is a video; this tab reads pages only.", name=path.name),
                _("Remove it, or use the Chat tab for it."),
            )
    if len(pages) > MAX_BATCH_PAGES:
        raise UserError(
            _("There are {count} pages; one run reads at most {limit}.", count=len(pages), limit=MAX_BATCH_PAGES),
            _("Read them in several runs."),
        )
    for number, page in enumerate(pages, 1):
        page.number = number
    return pages


async def run_batch(batch: PageBatch, reads: PageReader, at_once: int, wants_json: bool) -> AsyncIterator[None]:
    """Reads all waiting pages, `at_once` in parallel. Yields regularly until no page is left or `batch.stop` is set."""
    batch.started_s, batch.ended_s, batch.stop = time.monotonic(), None, False
    batch.done_before = batch.count(PageState.DONE)
    waiting = iter([page for page in batch.pages if page.state is PageState.WAITING])

    async def reader() -> None:
        for page in waiting:  # shared by all readers
            if batch.stop:
                page.state = PageState.STOPPED
            else:
                await _read_page(page, reads, wants_json)

    readers = [asyncio.create_task(reader()) for _ in range(max(1, at_once))]
    try:
        pending: set[asyncio.Task[None]] = set(readers)
        while pending and not batch.stop:
            _, pending = await asyncio.wait(pending, timeout=BATCH_UPDATE_S)
            yield
    finally:
        for task in readers:
            task.cancel()
        await asyncio.gather(*readers, return_exceptions=True)
        for page in batch.pages:
            if page.state in (PageState.WAITING, PageState.READING):
                page.state = PageState.STOPPED
        batch.ended_s = time.monotonic()


def requeue_unread(batch: PageBatch) -> int:
    """Sets all unread pages to waiting. Returns their number."""
    unread = [page for page in batch.pages if page.state in (PageState.FAILED, PageState.STOPPED)]
    for page in unread:
        page.state, page.failure = PageState.WAITING, ""
    return len(unread)


def parse_schema(text: str) -> dict[str, Any] | None:
    """Returns the response_format for a JSON schema; None for an empty text. Raises UserError."""
    if not text.strip():
        return None
    try:
        schema = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(
            _("The JSON schema is not valid JSON: line {line}, {message}.", line=error.lineno, message=error.msg),
            _("Correct it or clear it."),
        ) from None
    if not isinstance(schema, dict):
        raise UserError(_("A JSON schema must be an object in braces."), _("Correct it or clear it."))
    return {"type": "json_schema", "json_schema": {"name": "page", "schema": schema}}


async def _read_page(page: BatchPage, reads: PageReader, wants_json: bool) -> None:
    page.state, page.tries = PageState.READING, page.tries + 1
    started_s = time.monotonic()
    try:
        answer = await reads(page)
    except UserError as failure:
        page.state, page.failure = PageState.FAILED, str(failure)
        return
    except Exception as error:  # no error on one page may stop the other pages
        page.state, page.failure = (
            PageState.FAILED,
            _("This page could not be read ({kind}). Retry it.", kind=type(error).__name__),
        )
        return
    page.elapsed_s = time.monotonic() - started_s
    page.engine, page.text = answer.served.engine, answer.text
    page.prompt_tokens, page.completion_tokens = answer.prompt_tokens, answer.completion_tokens
    page.state, page.failure = _validate_answer(page, answer, wants_json)


def _validate_answer(page: BatchPage, answer: StreamedAnswer, wants_json: bool) -> tuple[PageState, str]:
    if answer.failure is not None:
        return PageState.FAILED, str(answer.failure)
    if not wants_json:
        return PageState.DONE, ""
    try:
        value = json.loads(answer.text)
    except json.JSONDecodeError:
        if answer.finish_reason == "length":
            return PageState.FAILED, _(
                "The answer is not complete JSON: it was truncated at max tokens. Increase max tokens."
            )
        return PageState.FAILED, _("The answer is not complete JSON. Retry it.")
    page.fields = value if isinstance(value, dict) else {"answer": value}
    return PageState.DONE, ""


READ_PROMPTS = {
    N_("Transcribe"): N_(
        "Transcribe all text on this page. Keep the line breaks; write tables as Markdown. Add nothing."
    ),
    N_("Markdown"): N_(
        "Convert this page to Markdown: headings, lists, tables. Describe figures in one sentence in brackets. Add nothing."
    ),
    N_("Summarise"): N_("Summarise this page in three sentences."),
    N_("Fields as JSON"): N_("Read the fields of this page. Answer with JSON only."),
}
EXAMPLE_SCHEMA = """{
  "type": "object",
  "properties": {
    "kind": {"enum": ["receipt", "invoice", "letter", "chart", "other"]},
    "date": {"type": "string"},
    "total": {"type": "number"},
    "currency": {"type": "string"}
  },
  "required": ["kind"]
}"""


def make_page_reader(
    requester: ChatRequester,
    prompt: str,
    sampling: SamplingSettings,
    response_format: dict[str, Any] | None,
    by: Visitor,
) -> PageReader:
    """Returns a reader that sends each page as a separate conversation, so that pages spread over all engines."""

    async def read(page: BatchPage) -> StreamedAnswer:
        path = await asyncio.to_thread(_page_image, page, sampling.limits.longest)
        answer = StreamedAnswer(started_s=time.monotonic())
        each = replace(by, page=f"{by.page}-{page.number}")
        await requester.send(prompt, [str(path)], sampling, each, answer, response_format=response_format)
        return answer

    return read


def _page_image(page: BatchPage, longest: int) -> Path:
    if page.pdf_page is None:
        return page.file
    to = uploads.derived_path(page.file, f"{page.file.stem}-page-{page.pdf_page + 1}-{longest}px.png")
    if not to.exists():
        to.write_bytes(decoders.render_page(page.file, page.pdf_page, longest)[0])
    return to
