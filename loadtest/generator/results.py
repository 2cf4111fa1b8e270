"""Samples on their way from each process to the master (directly, or with a worker's reports), and the files they end in:
every sample in requests.jsonl, the generator's own seconds in generator.jsonl."""

import resource
import time
from collections.abc import Callable, Mapping
from dataclasses import astuple
from pathlib import Path
from typing import IO, Any

import gevent
import orjson
from locust.env import Environment

from loadtest.statistics import Sample

LAG_EVERY_S = 0.05


class SampleReporter:
    """Collects samples until they are taken, counts what is under way, and watches how the process itself keeps up."""

    def __init__(self) -> None:
        self.environment: Environment | None = None
        self.under_way = 0
        self._samples: list[Sample] = []
        self._cpu_s, self._at = _cpu_s(), time.monotonic()
        self._lag_s = 0.0

    def sample(self, sample: Sample) -> None:
        self._samples.append(sample)
        assert self.environment is not None
        # Locust's own table and charts: whole answers only. First tokens and tokens have files and figures of their own;
        # as further rows they would be counted as requests.
        self.environment.events.request.fire(
            request_type="POST",
            name=sample.scenario,
            response_time=1000 * sample.total_s,
            response_length=sample.tokens,
            exception=RequestFailed(sample.failed) if sample.failed else None,
            context={},
        )

    def watch(self) -> None:
        """A greenlet: how late is a timer? That is how late tokens are stamped too."""
        while True:
            before = time.monotonic()
            gevent.sleep(LAG_EVERY_S)
            self._lag_s = max(self._lag_s, time.monotonic() - before - LAG_EVERY_S)

    def collect(self) -> dict[str, Any]:
        """Everything since the last time. `cpu`: share of a core that this process used in between."""
        samples, self._samples = self._samples, []
        cpu_s, now, lag_s = _cpu_s(), time.monotonic(), self._lag_s
        share = (cpu_s - self._cpu_s) / max(1e-3, now - self._at)
        self._cpu_s, self._at, self._lag_s = cpu_s, now, 0.0
        return {
            "samples": [astuple(one) for one in samples],
            "cpu": share,
            "lag_s": lag_s,
            "under_way": self.under_way,
        }


class RequestFailed(Exception):
    """Why an answer does not count; Locust groups by the text."""


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


MAX_SAMPLES_IN_MEMORY = 20_000


class ResultWriter:
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

    def add(self, process: str, report: Mapping[str, Any]) -> None:
        new = [Sample(*fields) for fields in report["samples"]]
        self.samples += new
        if not self._files:  # Locust's page, which may stand for days
            del self.samples[:-MAX_SAMPLES_IN_MEMORY]
        self.cpu[process], self.under_way[process] = report["cpu"], report["under_way"]
        about = {"at_s": time.time(), "process": process, "cpu": report["cpu"], "lag_s": report["lag_s"]}
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
