"""The line above the box: what the attached files will cost, before anything is sent."""

from __future__ import annotations

import html

from config.pools import Pool
from webui import vision_tokens
from webui.attach import Cost
from webui.failure import Failure


def line(costs: list[Cost], text: str, pool: Pool | None) -> str:
    """HTML; empty where nothing is attached."""
    if not costs:
        return ""
    found = sum(cost.tokens for cost in costs)
    words = vision_tokens.text(text)
    total = f"≈ {found:,} vision tokens".replace(",", " ")
    if pool:
        total += f" of {pool.max_model_len:,} that fit".replace(",", " ")
    files = " · ".join(f"{html.escape(cost.name)} {cost.said}: {cost.tokens}" for cost in costs[:6])
    more = f" · and {len(costs) - 6} more" if len(costs) > 6 else ""
    return (
        f'<div class="estimate"><b>{total}</b> <span>{files}{more}</span>{_warning(costs, found + words, pool)}</div>'
    )


def failed(failure: Failure) -> str:
    return f'<div class="estimate" role="alert"><b class="bad">{html.escape(str(failure))}</b></div>'


def facts(costs: list[Cost], pool: Pool | None) -> dict[str, object]:
    """The same for programs."""
    return {
        "vision_tokens": sum(cost.tokens for cost in costs),
        "max_model_len": pool.max_model_len if pool else None,
        "files": [{"name": cost.name, "tokens": cost.tokens, "as_sent": cost.said} for cost in costs],
    }


def _warning(costs: list[Cost], tokens: int, pool: Pool | None) -> str:
    if pool is None:
        return ""
    pictures, videos = sum(cost.pictures for cost in costs), sum(cost.videos for cost in costs)
    said = ""
    if pictures > pool.media.images_per_prompt:
        said = f"{pool.name} takes {pool.media.images_per_prompt} pictures in one chat"
    elif videos > pool.media.videos_per_prompt:
        said = f"{pool.name} takes {pool.media.videos_per_prompt} video in one chat"
    elif tokens > pool.max_model_len:
        said = "this does not fit; scale the pictures down in the settings"
    return f' <b class="bad" role="alert">{html.escape(said)}</b>' if said else ""
