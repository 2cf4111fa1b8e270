"""Renders the results of a batch as a table and as CSV, JSON and Markdown files."""

import csv
import html
import io
import json
from collections.abc import Iterable, Sequence
from typing import Any

from webui.files.batch import BatchPage, PageBatch, PageState
from webui.i18n import N_, _
from webui.theme import hint_html

MAX_CELL_CHARS = 160
TABLE_COLUMNS = (
    "",
    N_("Page"),
    N_("State"),
    N_("Result"),
    N_("Engine"),
    N_("Time (s)"),
    N_("Tokens in / out"),
)
STATE_NAMES = {
    PageState.WAITING: N_("waiting"),
    PageState.READING: N_("reading"),
    PageState.DONE: N_("done"),
    PageState.FAILED: N_("failed"),
    PageState.STOPPED: N_("stopped"),
}


def table_rows(batch: PageBatch) -> list[list[Any]]:
    return [
        [
            page.number,
            page.name,
            _(STATE_NAMES[page.state]) + (_(" (try {count})", count=page.tries) if page.tries > 1 else ""),
            shorten(page.failure or page.text),
            page.engine,
            "" if page.elapsed_s is None else f"{page.elapsed_s:.1f}",
            "" if page.completion_tokens is None else f"{page.prompt_tokens} / {page.completion_tokens}",
        ]
        for page in batch.pages
    ]


def shorten(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= MAX_CELL_CHARS else f"{flat[: MAX_CELL_CHARS - 1]}…"


def batch_csv(batch: PageBatch) -> str:
    """Returns CSV with one row per page. Each field of a schema is a column."""
    names = list(dict.fromkeys(name for page in batch.pages for name in page.fields or {}))
    rows = []
    for page in batch.pages:
        fields = page.fields or {}
        values = [fields.get(name) for name in names] if names else [page.text]
        seconds = "" if page.elapsed_s is None else f"{page.elapsed_s:.3f}"
        rows.append([page.number, page.name, page.state.value, page.failure, page.engine, seconds, *values])
    return csv_text(["page", "name", "state", "error", "engine", "seconds", *(names or ["text"])], rows)


def batch_json(batch: PageBatch) -> str:
    return json.dumps({"pages": [page_facts(page) for page in batch.pages]}, ensure_ascii=False, indent=1)


def batch_markdown(batch: PageBatch) -> str:
    parts = ["# Documents"]
    for page in batch.pages:
        parts.append(f"## {page.name}")
        if page.state is not PageState.DONE:
            parts.append(f"*{page.state.value}: {page.failure or 'not read'}*")
        elif page.fields is not None:
            parts.append(f"```json\n{json.dumps(page.fields, ensure_ascii=False, indent=1)}\n```")
        else:
            parts.append(page.text)
    return "\n\n".join(parts) + "\n"


def page_facts(page: BatchPage) -> dict[str, Any]:
    return {
        "page": page.number,
        "name": page.name,
        "state": page.state.value,
        "text": page.text,
        "fields": page.fields,
        "error": page.failure or None,
        "tries": page.tries,
        "engine": page.engine or None,
        "seconds": None if page.elapsed_s is None else round(page.elapsed_s, 3),
        "tokens_in": page.prompt_tokens,
        "tokens_out": page.completion_tokens,
    }


def csv_text(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Returns CSV. A quote is put before text that looks like a formula, because spreadsheets would run it."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(columns)
    writer.writerows([_cell(value) for value in row] for row in rows)
    return out.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False)
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


def progress_html(batch: PageBatch | None, running: bool) -> str:
    """Returns the progress as HTML, or a hint before the first run."""
    if batch is None or not batch.pages:
        return hint_html(_("Add images or a PDF, then press Read. You can also try the samples."))
    total, done, failed = len(batch.pages), batch.count(PageState.DONE), batch.count(PageState.FAILED)
    share = 100 * (done + failed) / total
    return (
        f'<div class="progress" role="progressbar" aria-valuemin="0" aria-valuemax="{total}" '
        f'aria-valuenow="{done + failed}"><div class="bar"><i style="width:{share:.1f}%"></i></div>'
        f"<p>{html.escape(progress_text(batch, running))}</p></div>"
    )


def progress_text(batch: PageBatch, running: bool) -> str:
    """Returns the progress, for example: 12 of 40 pages read · 3.1 pages/s · 8 in progress · 1 failed."""
    parts = [_("{done} of {all} pages read", done=batch.count(PageState.DONE), all=len(batch.pages))]
    if batch.pages_per_s:
        parts.append(_("{speed} pages/s", speed=f"{batch.pages_per_s:.1f}"))
    if running and (now := batch.count(PageState.READING)):
        parts.append(_("{count} in progress", count=now))
    if failed := batch.count(PageState.FAILED):
        parts.append(_("{count} failed: press Retry failed", count=failed))
    if not running and (stopped := batch.count(PageState.STOPPED)):
        parts.append(_("{count} not read", count=stopped))
    engines = sorted({page.engine for page in batch.pages if page.engine})
    if engines:
        parts.append(_("by {engines}", engines=", ".join(engines)))
    return " · ".join(parts)
