"""How far a batch is: a bar with its words."""

from __future__ import annotations

import html

from webui.files.batch import Batch, State
from webui.i18n.language import say


def bar(batch: Batch | None, running: bool) -> str:
    """HTML; before anything runs, what to do."""
    if batch is None or not batch.pages:
        return f'<p class="empty">{say("Add pictures or a PDF, then press Read. The samples show how it looks.")}</p>'
    total, done, failed = len(batch.pages), batch.count(State.DONE), batch.count(State.FAILED)
    share = 100 * (done + failed) / total
    return (
        f'<div class="progress" role="progressbar" aria-valuemin="0" aria-valuemax="{total}" '
        f'aria-valuenow="{done + failed}"><div class="bar"><i style="width:{share:.1f}%"></i></div>'
        f"<p>{html.escape(words(batch, running))}</p></div>"
    )


def words(batch: Batch, running: bool) -> str:
    """For example: 12 of 40 pages read · 3.1 pages/s · 8 at the moment · 1 failed."""
    parts = [say("{done} of {all} pages read", done=batch.count(State.DONE), all=len(batch.pages))]
    if batch.pages_per_s:
        parts.append(say("{speed} pages/s", speed=f"{batch.pages_per_s:.1f}"))
    if running and (now := batch.count(State.READING)):
        parts.append(say("{count} at the moment", count=now))
    if failed := batch.count(State.FAILED):
        parts.append(say("{count} failed: press Retry failed", count=failed))
    if not running and (stopped := batch.count(State.STOPPED)):
        parts.append(say("{count} not read", count=stopped))
    engines = sorted({page.engine for page in batch.pages if page.engine})
    if engines:
        parts.append(say("by {engines}", engines=", ".join(engines)))
    return " · ".join(parts)
