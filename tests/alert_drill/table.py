"""docs/benchmarks/alert-drill.md, from the raw lines beside it."""

import json
from pathlib import Path
from typing import Any

from tests.alert_drill.faults import FAULTS

DOCS = Path(__file__).resolve().parents[2] / "docs/benchmarks"
RAW = DOCS / "alert-drill.jsonl"
PAGE = DOCS / "alert-drill.md"
BEGIN, END = "<!-- made by `tests/run alert-drill` -->\n", "<!-- until here -->\n"


def read() -> list[dict[str, Any]]:
    return [json.loads(line) for line in RAW.read_text().splitlines()]


def rows(lines: list[dict[str, Any]]) -> str:
    """The table."""
    by_name = {one.name: one for one in FAULTS}
    told = ["| fault | alerts, and after how many seconds | others | clear after the repair, s |", "|---|---|---|---|"]
    for line in lines:
        raised = ", ".join(f"{alert}: {seconds:g}" for alert, seconds in line["raised_s"].items())
        others = ", ".join(line["others"]) or "none"
        told.append(f"| {by_name[line['fault']].what} | {raised} | {others} | {line['cleared_s']:g} |")
    return "\n".join(told) + "\n"


def write() -> None:
    """Puts the table into the page."""
    text = PAGE.read_text()
    before, _, rest = text.partition(BEGIN)
    PAGE.write_text(before + BEGIN + rows(read()) + END + rest.partition(END)[2])
