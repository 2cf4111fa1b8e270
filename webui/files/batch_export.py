"""The results of a batch as a table and as files: CSV for sheets, JSON for programs, Markdown for people."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

from webui.files.batch import Batch, Page, State
from webui.i18n.language import later, say

SHORT = 160
COLUMNS = (
    "",
    later("Page"),
    later("State"),
    later("Result"),
    later("Engine"),
    later("Time (s)"),
    later("Tokens in / out"),
)
STATES = {
    State.WAITING: later("waiting"),
    State.READING: later("reading"),
    State.DONE: later("done"),
    State.FAILED: later("failed"),
    State.STOPPED: later("stopped"),
}


def columns() -> list[str]:
    return [say(name) for name in COLUMNS]


def rows(batch: Batch) -> list[list[Any]]:
    """For the table on the page."""
    return [
        [
            page.number,
            page.name,
            say(STATES[page.state]) + (say(" (try {count})", count=page.tries) if page.tries > 1 else ""),
            short(page.failure or page.text),
            page.engine,
            "" if page.took_s is None else f"{page.took_s:.1f}",
            "" if page.tokens_out is None else f"{page.tokens_in} / {page.tokens_out}",
        ]
        for page in batch.pages
    ]


def short(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= SHORT else f"{flat[: SHORT - 1]}…"


def to_csv(batch: Batch) -> str:
    """A row a page. Fields of a schema are columns of their own."""
    names = _field_names(batch)
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(["page", "name", "state", "error", "engine", "seconds", *(names or ["text"])])
    for page in batch.pages:
        fields = page.fields or {}
        values = [_cell(fields.get(name)) for name in names] if names else [_safe(page.text)]
        took = "" if page.took_s is None else f"{page.took_s:.3f}"
        writer.writerow([page.number, _safe(page.name), page.state.value, page.failure, page.engine, took, *values])
    return out.getvalue()


def to_json(batch: Batch) -> str:
    return json.dumps({"pages": [as_dict(page) for page in batch.pages]}, ensure_ascii=False, indent=1)


def to_markdown(batch: Batch) -> str:
    parts = ["# Documents"]
    for page in batch.pages:
        parts.append(f"## {page.name}")
        if page.state is not State.DONE:
            parts.append(f"*{page.state.value}: {page.failure or 'not read'}*")
        elif page.fields is not None:
            parts.append(f"```json\n{json.dumps(page.fields, ensure_ascii=False, indent=1)}\n```")
        else:
            parts.append(page.text)
    return "\n\n".join(parts) + "\n"


def as_dict(page: Page) -> dict[str, Any]:
    return {
        "page": page.number,
        "name": page.name,
        "state": page.state.value,
        "text": page.text,
        "fields": page.fields,
        "error": page.failure or None,
        "tries": page.tries,
        "engine": page.engine or None,
        "seconds": None if page.took_s is None else round(page.took_s, 3),
        "tokens_in": page.tokens_in,
        "tokens_out": page.tokens_out,
    }


def _field_names(batch: Batch) -> list[str]:
    names: dict[str, None] = {}
    for page in batch.pages:
        names.update(dict.fromkeys(page.fields or {}))
    return list(names)


def _cell(value: Any) -> Any:
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False)
    return _safe(value) if isinstance(value, str) else value


def _safe(text: str) -> str:
    """Sheets run what begins like a formula; a picture may hold one."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text
