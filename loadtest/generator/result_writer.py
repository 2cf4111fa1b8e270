"""What the master keeps: every sample in requests.jsonl, the generator's own seconds in generator.jsonl, all in memory."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import orjson

from loadtest.sample import Sample

MOST = 20_000


class Kept:
    """Files of one run. `trouble` is why they are not whole; `failed` is called once when that happens."""

    def __init__(self, folder: Path | None, failed: Callable[[], None]) -> None:
        self.samples: list[Sample] = []
        self.trouble = ""
        self.cpu: dict[str, float] = {}
        self.under_way: dict[str, int] = {}
        self._failed = failed
        self._files: dict[str, IO[bytes]] = {}
        if folder is not None:
            self._files = {name: (folder / f"{name}.jsonl").open("ab") for name in ("requests", "generator")}

    def add(self, process: str, told: Mapping[str, Any]) -> None:
        new = [Sample(*fields) for fields in told["samples"]]
        self.samples += new
        if not self._files:  # Locust's page, which may stand for days
            del self.samples[:-MOST]
        self.cpu[process], self.under_way[process] = told["cpu"], told["under_way"]
        about = {"at_s": time.time(), "process": process, "cpu": told["cpu"], "lag_s": told["lag_s"]}
        self._write("requests", b"".join(one.line() for one in new))
        self._write("generator", orjson.dumps(about) + b"\n")

    def _write(self, name: str, lines: bytes) -> None:
        if not lines or not self._files or self.trouble:
            return
        try:
            self._files[name].write(lines)
            self._files[name].flush()
        except OSError as error:
            self.trouble = f"{self._files[name].name}: {error.strerror}"
            self._failed()

    def close(self) -> None:
        for file in self._files.values():
            try:
                file.close()
            except OSError as error:
                self.trouble = self.trouble or f"{file.name}: {error.strerror}"
