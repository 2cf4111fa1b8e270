"""Which measurements a run makes, in which order, and their results: a finished one is a line of runs.jsonl."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from benchmarks.gateways.gateway import BenchmarkedGateway

MeasurementKind = Literal["work", "best", "cpu", "latency", "stream"]


@dataclass(frozen=True)
class BenchmarkJob:
    """`work`, `users` and `headers` (how many session headers are sent) are set where `kind` is work or best."""

    kind: MeasurementKind
    gateway: str
    engines: int
    repeat: int
    work: str = ""
    headers: int = 0

    def __str__(self) -> str:
        what = f"{self.work} on {self.engines} engines" if self.kind in ("work", "best") else self.kind
        more = f", {self.headers} session header(s)" if self.headers else ""
        return f"{self.gateway}: {what}{more}, repeat {self.repeat + 1}"


@dataclass(frozen=True)
class JobResult:
    """`found` is what the measure returned; `failed` is why it could not, and empty when it could."""

    job: BenchmarkJob
    found: dict[str, Any]
    failed: str = ""
    busy_before: float = 0.0


def append_job_result(file: Path, finished: JobResult) -> None:
    with file.open("a") as lines:
        lines.write(json.dumps(asdict(finished)) + "\n")


def read_job_results(file: Path) -> Iterator[JobResult]:
    if not file.exists():
        return
    for line in file.read_text().splitlines():
        fields = json.loads(line)
        yield JobResult(BenchmarkJob(**fields.pop("job")), **fields)


NO_GATEWAY = "no gateway"


@dataclass(frozen=True)
class BenchmarkSelection:
    """What the command line asks for."""

    kinds: tuple[str, ...]
    works: tuple[str, ...]
    engines: tuple[int, ...]
    headers: tuple[int, ...]
    repeats: int


def plan_jobs(wanted: BenchmarkSelection, gateways: Sequence[BenchmarkedGateway]) -> list[BenchmarkJob]:
    """All jobs, in order: each repeat goes once through everything, starting with another gateway each time.

    The first number of engines gets all work; the others get chats and pictures. Gateways that are not their maker's
    first choice get chats and pictures on the first number of engines.
    """
    jobs: list[BenchmarkJob] = []
    for repeat in range(wanted.repeats):
        turned = [*gateways[repeat % len(gateways) :], *gateways[: repeat % len(gateways)]] if gateways else []
        if "work" in wanted.kinds:
            for engines in wanted.engines:
                jobs += _works(wanted, turned, engines, repeat)
        for kind in ("cpu", "latency", "stream"):
            if kind in wanted.kinds:
                jobs += _solo(kind, turned, wanted.engines[0], repeat)
    return jobs


def _works(
    wanted: BenchmarkSelection, gateways: Sequence[BenchmarkedGateway], engines: int, repeat: int
) -> Iterable[BenchmarkJob]:
    first = engines == wanted.engines[0]
    for work in wanted.works:
        common = work in ("chat", "images")
        if not (first or common):
            continue
        if repeat == 0:
            yield BenchmarkJob("best", NO_GATEWAY, engines, 0, work)
        for headers in wanted.headers:
            if headers and not (work == "chat" and first):
                continue
            for gateway in gateways:
                if headers <= len(gateway.headers) and (headers or gateway.leading or (first and common)):
                    yield BenchmarkJob("work", gateway.name, engines, repeat, work, headers)


def _solo(
    kind: MeasurementKind, gateways: Sequence[BenchmarkedGateway], engines: int, repeat: int
) -> Iterable[BenchmarkJob]:
    for gateway in gateways:
        if gateway.leading and gateway.name != NO_GATEWAY:
            yield BenchmarkJob(kind, gateway.name, engines, repeat)
