"""What one phase of one visit gave; a line of runs.jsonl."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from loadtest.figures import Figures
from loadtest.scaling_report.phases import Phase, Visit


@dataclass(frozen=True)
class Measured:
    """`used`: share of the time that each engine's GPU worked, by name. `died`: engines that ended by themselves meanwhile.
    `limit_rps`: what a search found. `trouble`: why this is partial; such a line does not count and is measured again."""

    visit: Visit
    phase: Phase
    figures: Figures
    seconds: float = 0.0
    used: dict[str, float] = field(default_factory=dict)
    died: int = 0
    limit_rps: float | None = None
    probes: list[dict[str, Any]] = field(default_factory=list)
    cpu_p95: float = 0.0
    lag_p95_s: float = 0.0
    generator_was_limit: bool = False
    machine_share: float = 0.0
    trouble: str = ""


def append(file: Path, measured: Measured) -> None:
    """Raises OSError when the disk is full."""
    with file.open("ab") as lines:
        lines.write(orjson.dumps(dataclasses.asdict(measured)) + b"\n")


def read(file: Path) -> Iterator[Measured]:
    """All whole lines, in order."""
    if not file.exists():
        return
    for line in file.read_bytes().splitlines():
        try:
            fields = orjson.loads(line)
            visit, figures = Visit(**fields.pop("visit")), Figures(**fields.pop("figures"))
            yield Measured(visit, figures=figures, **fields)
        except (orjson.JSONDecodeError, TypeError, KeyError):
            continue


def good(file: Path) -> list[Measured]:
    """Those that count, the last one of each where one was measured again."""
    found = {(one.visit, one.phase): one for one in read(file) if not one.trouble}
    return list(found.values())
