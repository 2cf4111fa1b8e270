"""How far a batch is: a bar with its words."""

from __future__ import annotations

import html

from webui.batch import Batch, State


def bar(batch: Batch | None, running: bool) -> str:
    """HTML; before anything runs, what to do."""
    if batch is None or not batch.pages:
        return '<p class="empty">Add pictures or a PDF, then press Read. The samples show how it looks.</p>'
    total, done, failed = len(batch.pages), batch.count(State.DONE), batch.count(State.FAILED)
    share = 100 * (done + failed) / total
    return (
        f'<div class="progress" role="progressbar" aria-valuemin="0" aria-valuemax="{total}" '
        f'aria-valuenow="{done + failed}"><div class="bar"><i style="width:{share:.1f}%"></i></div>'
        f"<p>{html.escape(words(batch, running))}</p></div>"
    )


def words(batch: Batch, running: bool) -> str:
    """For example: 12 of 40 pages read · 3.1 pages/s · 8 at the moment · 1 failed."""
    parts = [f"{batch.count(State.DONE)} of {len(batch.pages)} pages read"]
    if batch.pages_per_s:
        parts.append(f"{batch.pages_per_s:.1f} pages/s")
    if running and (now := batch.count(State.READING)):
        parts.append(f"{now} at the moment")
    if failed := batch.count(State.FAILED):
        parts.append(f"{failed} failed: press Retry failed")
    if not running and (stopped := batch.count(State.STOPPED)):
        parts.append(f"{stopped} not read")
    engines = sorted({page.engine for page in batch.pages if page.engine})
    if engines:
        parts.append(f"by {', '.join(engines)}")
    return " · ".join(parts)
