"""What each decision saw, as JSON lines: a file a day in the state volume. `make autoscale-replay` reads it."""

import json
from collections.abc import Iterable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import structlog

from manyeyes.controller.autoscaling.demand import Load

log = structlog.get_logger()
KEPT_DAYS = 14


class Record:
    """Appends to FOLDER/2026-11-21.jsonl and removes the oldest files. A full disk costs the record, nothing else."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._failed = False

    def add(self, looks: Iterable[tuple[str, Load]]) -> None:
        """(pool, what was seen of it) of one moment."""
        lines = [json.dumps({"pool": pool, **asdict(load)}, separators=(",", ":")) + "\n" for pool, load in looks]
        if not lines:
            return
        path = self.folder / f"{datetime.now(UTC):%Y-%m-%d}.jsonl"
        try:
            if not path.exists():
                self.folder.mkdir(parents=True, exist_ok=True)
                for old in sorted(self.folder.glob("*.jsonl"))[: -(KEPT_DAYS - 1)]:
                    old.unlink()
            with path.open("a", encoding="utf-8") as file:
                file.writelines(lines)
            self._failed = False
        except (OSError, ValueError) as error:
            if not self._failed:
                log.error("load_not_recorded", file=str(path), error=str(error))
            self._failed = True
