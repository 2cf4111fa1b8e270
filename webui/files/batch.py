"""Reads many pages at once: each by itself, so that one that fails costs no other."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from webui.auth import upload_paths
from webui.chat.streamed_answer import Answer
from webui.files import attachments, media_parts, pdf
from webui.i18n.language import say
from webui.user_error import Failure

TELL_S = 0.4
"""Pause between two looks at how far it is."""
MOST_PAGES = 1000


class State(StrEnum):
    WAITING = "waiting"
    READING = "reading"
    DONE = "done"
    FAILED = "failed"
    STOPPED = "stopped"


@dataclass
class Page:
    """One picture, or one page of a PDF. Times in seconds."""

    number: int
    file: Path
    of_pdf: int | None = None
    """Which page of the PDF, from 0."""
    state: State = State.WAITING
    text: str = ""
    fields: dict[str, Any] | None = None
    """What the text holds, where a schema was asked for."""
    failure: str = ""
    tries: int = 0
    engine: str = ""
    took_s: float | None = None
    tokens_in: int | None = None
    tokens_out: int | None = None

    @property
    def name(self) -> str:
        return (
            self.file.name
            if self.of_pdf is None
            else say("{name}, page {number}", name=self.file.name, number=self.of_pdf + 1)
        )


@dataclass
class Batch:
    pages: list[Page] = field(default_factory=list)
    begun_s: float | None = None
    ended_s: float | None = None
    read_before: int = 0
    """Pages that were done when this run began."""
    stop: bool = False

    def count(self, *states: State) -> int:
        return sum(page.state in states for page in self.pages)

    @property
    def pages_per_s(self) -> float | None:
        """Pages read in this run over its time so far."""
        if self.begun_s is None:
            return None
        took_s = (self.ended_s or time.monotonic()) - self.begun_s
        done = self.count(State.DONE) - self.read_before
        return done / took_s if took_s > 0 and done else None


Reads = Callable[[Page], Awaitable[Answer]]


def pages_of(files: list[str]) -> list[Page]:
    """All pages of all files, in order. Looks into PDFs: to be called in a thread. Raises Failure."""
    found: list[Page] = []
    for name in files:
        path = upload_paths.own(name)
        if attachments.is_pdf(path):
            found += [Page(0, path, number) for number in range(pdf.count(path))]
        elif media_parts.mime_type(path).startswith("image/"):
            found.append(Page(0, path))
        else:
            raise Failure(
                say("{name} is a video; here pages are read.", name=path.name),
                say("Take it out, or ask about it in the Chat tab."),
            )
    if len(found) > MOST_PAGES:
        raise Failure(
            say("These are {count} pages; at most {most} are read at once.", count=len(found), most=MOST_PAGES),
            say("Read them in parts."),
        )
    for number, page in enumerate(found, 1):
        page.number = number
    return found


async def run(batch: Batch, reads: Reads, at_once: int, wants_json: bool) -> AsyncIterator[None]:
    """Reads all pages that wait, `at_once` at a time, and yields now and then until none is left or `batch.stop`."""
    batch.begun_s, batch.ended_s, batch.stop = time.monotonic(), None, False
    batch.read_before = batch.count(State.DONE)
    waiting = iter([page for page in batch.pages if page.state is State.WAITING])

    async def reader() -> None:
        for page in waiting:  # all readers share it
            if batch.stop:
                page.state = State.STOPPED
            else:
                await _read(page, reads, wants_json)

    readers = [asyncio.create_task(reader()) for _ in range(max(1, at_once))]
    try:
        left: set[asyncio.Task[None]] = set(readers)
        while left and not batch.stop:
            _, left = await asyncio.wait(left, timeout=TELL_S)
            yield
    finally:
        for task in readers:
            task.cancel()
        await asyncio.gather(*readers, return_exceptions=True)
        for page in batch.pages:
            if page.state in (State.WAITING, State.READING):
                page.state = State.STOPPED
        batch.ended_s = time.monotonic()


def again(batch: Batch) -> int:
    """Lets all pages wait that were not read; how many those are."""
    found = [page for page in batch.pages if page.state in (State.FAILED, State.STOPPED)]
    for page in found:
        page.state, page.failure = State.WAITING, ""
    return len(found)


def schema_of(text: str) -> dict[str, Any] | None:
    """The response_format for a JSON schema; None where there is none. Raises Failure."""
    if not text.strip():
        return None
    try:
        schema = json.loads(text)
    except json.JSONDecodeError as error:
        raise Failure(
            say("The JSON schema is not JSON: line {line}, {said}.", line=error.lineno, said=error.msg),
            say("Correct or empty it."),
        ) from None
    if not isinstance(schema, dict):
        raise Failure(say("A JSON schema is an object in braces."), say("Correct or empty it."))
    return {"type": "json_schema", "json_schema": {"name": "page", "schema": schema}}


async def _read(page: Page, reads: Reads, wants_json: bool) -> None:
    page.state, page.tries = State.READING, page.tries + 1
    begun_s = time.monotonic()
    try:
        answer = await reads(page)
    except Failure as failure:
        page.state, page.failure = State.FAILED, str(failure)
        return
    except Exception as error:  # one page's trouble is no other page's, whatever it is
        page.state, page.failure = (
            State.FAILED,
            say("This page could not be read ({kind}). Retry it.", kind=type(error).__name__),
        )
        return
    page.took_s = time.monotonic() - begun_s
    page.engine, page.text = answer.served.engine, answer.text
    page.tokens_in, page.tokens_out = answer.tokens_in, answer.tokens_out
    page.state, page.failure = _judged(page, answer, wants_json)


def _judged(page: Page, answer: Answer, wants_json: bool) -> tuple[State, str]:
    if answer.failure is not None:
        return State.FAILED, str(answer.failure)
    if not wants_json:
        return State.DONE, ""
    try:
        found = json.loads(answer.text)
    except json.JSONDecodeError:
        if answer.finish_reason == "length":
            return State.FAILED, say("The answer is not whole JSON. It was cut at max tokens: allow more.")
        return State.FAILED, say("The answer is not whole JSON. Retry it.")
    page.fields = found if isinstance(found, dict) else {"answer": found}
    return State.DONE, ""
