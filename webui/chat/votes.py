"""Comparisons that were made and what was thought of them; kept by the visitor's own browser."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from typing import Any

from webui.i18n.language import counted, later, say

MOST = 100
EQUAL = later("equally good")

Comparison = dict[str, Any]
"""As side_by_side.as_dict makes it, and "vote"."""


def added(kept: object, comparison: Comparison) -> list[Comparison]:
    """Newest first, the oldest forgotten."""
    return [comparison | {"vote": None}, *sound(kept)][:MOST]


def voted(kept: object, vote: str) -> list[Comparison]:
    """The newest comparison with its vote."""
    found = sound(kept)
    if not found:
        return []
    return [found[0] | {"vote": vote}, *found[1:]]


def tally(kept: object) -> str:
    """For example: 3 votes: qwen3-vl-8b 2, equally good 1."""
    counts = Counter(str(one["vote"]) for one in sound(kept) if one.get("vote"))
    if not counts:
        return ""
    total = sum(counts.values())
    words = ", ".join(f"{say(name)} {count}" for name, count in counts.most_common())
    return f"{counted(total, '{count} vote', '{count} votes')}: {words}"


def to_json(kept: object) -> str:
    return json.dumps({"comparisons": sound(kept)}, ensure_ascii=False, indent=1)


def to_csv(kept: object) -> str:
    """A row an answer."""
    out = io.StringIO()
    writer = csv.writer(out)
    columns = (
        "model",
        "engine",
        "first_token_ms",
        "total_s",
        "tokens_per_s",
        "tokens_in",
        "tokens_out",
        "error",
        "text",
    )
    writer.writerow(["comparison", "question", "vote", "speed_up", "verdict", *columns])
    for number, one in enumerate(sound(kept), 1):
        for answer in one["answers"]:
            row = [number, one.get("question"), one.get("vote"), one.get("speed_up"), answer.get("verdict")]
            writer.writerow([_safe(cell) for cell in (*row, *(answer.get(column) for column in columns))])
    return out.getvalue()


def sound(kept: object) -> list[Comparison]:
    """What is well formed of what a browser sent."""
    if not isinstance(kept, list):
        return []
    return [
        one
        for one in kept
        if isinstance(one, dict)
        and isinstance(one.get("answers"), list)
        and all(isinstance(answer, dict) for answer in one["answers"])
    ]


def _safe(cell: Any) -> Any:
    """Sheets run what begins like a formula."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(("=", "+", "-", "@", "\t", "\r")) else cell
