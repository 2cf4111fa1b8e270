"""One measurement: which gateway, doing what, how often already. A finished one is a line of runs.jsonl."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

Kind = Literal["work", "best", "cpu", "latency", "stream"]


@dataclass(frozen=True)
class Job:
    """`work`, `users` and `headers` (how many session headers are sent) are set where `kind` is work or best."""

    kind: Kind
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
class Finished:
    """`found` is what the measure returned; `failed` is why it could not, and empty when it could."""

    job: Job
    found: dict[str, Any]
    failed: str = ""
    busy_before: float = 0.0


def append(file: Path, finished: Finished) -> None:
    with file.open("a") as lines:
        lines.write(json.dumps(asdict(finished)) + "\n")


def read(file: Path) -> Iterator[Finished]:
    if not file.exists():
        return
    for line in file.read_text().splitlines():
        fields = json.loads(line)
        yield Finished(Job(**fields.pop("job")), **fields)
