"""Reads one page of a document: the picture as it is, or the page of the PDF drawn."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

from webui.auth import upload_paths
from webui.chat.sampling_settings import Knobs
from webui.chat.single_request import Asker
from webui.chat.streamed_answer import Answer
from webui.files import images, pdf
from webui.files.batch import Page, Reads
from webui.i18n.language import later

PROMPTS = {
    later("Transcribe"): later(
        "Transcribe all text on this page. Keep the line breaks; write tables as Markdown. Add nothing."
    ),
    later("Markdown"): later(
        "Convert this page to Markdown: headings, lists, tables. Describe figures in one sentence in brackets. Add nothing."
    ),
    later("Summarise"): later("Summarise this page in three sentences."),
    later("Fields as JSON"): later("Read the fields of this page. Answer with JSON only."),
}
SCHEMA = """{
  "type": "object",
  "properties": {
    "kind": {"enum": ["receipt", "invoice", "letter", "chart", "other"]},
    "date": {"type": "string"},
    "total": {"type": "number"},
    "currency": {"type": "string"}
  },
  "required": ["kind"]
}"""


def reads(
    asker: Asker, prompt: str, knobs: Knobs, response_format: dict[str, Any] | None, visit: str, key: str
) -> Reads:
    """Each page is a conversation of its own, so that they spread over all engines."""

    async def read(page: Page) -> Answer:
        path = await asyncio.to_thread(_picture, page, knobs.limits.longest)
        answer = Answer(asked_s=time.monotonic())
        more = {} if response_format is None else {"response_format": response_format}
        await asker.ask(prompt, [str(path)], knobs, f"{visit}-{page.number}", key, answer, **more)
        return answer

    return read


def _picture(page: Page, longest: int) -> Path:
    if page.of_pdf is None:
        return page.file
    to = upload_paths.beside(page.file, f"{page.file.stem}-page-{page.of_pdf + 1}-{longest}px.png")
    if not to.exists():
        to.write_bytes(images.encoded(pdf.page(page.file, page.of_pdf, longest), ".png"))
    return to
