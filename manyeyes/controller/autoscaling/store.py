"""Persists the autoscaler's state (desired replicas, drained and stopped engines) and records the load."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog

from manyeyes.controller.autoscaling.demand import PoolLoad
from manyeyes.controller.state_store import StateStore

DOCUMENT = "scaling"
MAX_ENGINES = 1_000_000


@dataclass
class AutoscalerState:
    """Read at startup and written after every change. `stopped` engines are stopped or asleep."""

    desired: dict[str, int] = field(default_factory=dict)
    """By pool."""
    fixed: dict[str, int] = field(default_factory=dict)
    """By pool: counts set by hand."""
    draining: set[str] = field(default_factory=set)
    stopped: set[str] = field(default_factory=set)

    def document(self) -> dict[str, Any]:
        return {
            "wanted": dict(sorted(self.desired.items())),
            "fixed": dict(sorted(self.fixed.items())),
            "going": sorted(self.draining),
            "resting": sorted(self.stopped),
        }


def load_state(state_store: StateStore) -> AutoscalerState:
    """Reads the persisted state; empty when there is none or it is invalid. An invalid document is renamed."""
    document = state_store.read(DOCUMENT)
    if document is None:
        return AutoscalerState()
    try:
        if not isinstance(document, dict):
            raise TypeError("expected a mapping")
        return AutoscalerState(
            desired=_counts(document["wanted"]),
            fixed=_counts(document["fixed"]),
            draining=_names(document["going"]),
            stopped=_names(document["resting"]),
        )
    except (LookupError, TypeError, ValueError, OverflowError) as error:
        state_store.set_aside(DOCUMENT, f"{type(error).__name__}: {error}")
        return AutoscalerState()


def _counts(document: Any) -> dict[str, int]:
    if not isinstance(document, dict):
        raise TypeError("counts: expected a mapping")
    counts = {str(pool): int(count) for pool, count in document.items()}
    if any(not 1 <= count <= MAX_ENGINES for count in counts.values()):
        raise ValueError(f"counts: expected numbers from 1 to {MAX_ENGINES}")
    return counts


def _names(document: Any) -> set[str]:
    if not isinstance(document, list):
        raise TypeError("names of engines: expected a list")
    return {str(name) for name in document}


log = structlog.get_logger()
RETENTION_DAYS = 14


class LoadRecorder:
    """Appends to FOLDER/2026-11-21.jsonl and removes the oldest files. A full disk affects only the record."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._failed = False

    def add(self, loads: Iterable[tuple[str, PoolLoad]]) -> None:
        """Appends one sample of each pool."""
        lines = [json.dumps({"pool": pool, **asdict(load)}, separators=(",", ":")) + "\n" for pool, load in loads]
        if not lines:
            return
        path = self.folder / f"{datetime.now(UTC):%Y-%m-%d}.jsonl"
        try:
            if not path.exists():
                self.folder.mkdir(parents=True, exist_ok=True)
                for old in sorted(self.folder.glob("*.jsonl"))[: -(RETENTION_DAYS - 1)]:
                    old.unlink()
            with path.open("a", encoding="utf-8") as file:
                file.writelines(lines)
            self._failed = False
        except (OSError, ValueError) as error:
            if not self._failed:
                log.error("load_record_failed", file=str(path), error=str(error))
            self._failed = True
