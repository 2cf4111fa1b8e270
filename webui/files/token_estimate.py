"""The line above the box: what the attached files will cost, before anything is sent."""

from __future__ import annotations

import html

from manyeyes.config.pools import Pool
from webui.files import vision_tokens
from webui.files.attachments import Cost
from webui.i18n.language import say
from webui.user_error import Failure


def line(costs: list[Cost], text: str, pool: Pool | None) -> str:
    """HTML; empty where nothing is attached."""
    if not costs:
        return ""
    found = sum(cost.tokens for cost in costs)
    words = vision_tokens.text(text)
    total = say("≈ {tokens} vision tokens", tokens=_spaced(found))
    if pool:
        total += say(" of {most} that fit", most=_spaced(pool.max_model_len))
    files = " · ".join(f"{html.escape(cost.name)} {cost.said}: {cost.tokens}" for cost in costs[:6])
    more = say(" · and {count} more", count=len(costs) - 6) if len(costs) > 6 else ""
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


def _spaced(number: int) -> str:
    return f"{number:,}".replace(",", " ")


def _warning(costs: list[Cost], tokens: int, pool: Pool | None) -> str:
    if pool is None:
        return ""
    pictures, videos = sum(cost.pictures for cost in costs), sum(cost.videos for cost in costs)
    said = ""
    if pictures > pool.media.images_per_prompt:
        said = say("{pool} takes {most} pictures in one chat", pool=pool.name, most=pool.media.images_per_prompt)
    elif videos > pool.media.videos_per_prompt:
        said = say("{pool} takes {most} video in one chat", pool=pool.name, most=pool.media.videos_per_prompt)
    elif tokens > pool.max_model_len:
        said = say("this does not fit; scale the pictures down in the settings")
    return f' <b class="bad" role="alert">{html.escape(said)}</b>' if said else ""
