"""What one run of Locust is to do; a file that its processes read. The key is not in it: it stays in the environment."""

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import orjson

from loadtest.bisection import SearchPlan
from loadtest.http_client import target
from loadtest.shapes.stage import Stage
from loadtest.slo import STANDARD, Slo
from loadtest.virtual_user import Asked

ORDER = "MANYEYES_LOADTEST_ORDER"
KEY = "MANYEYES_API_KEY"

Loop = Literal["closed", "open"]


@dataclass(frozen=True)
class Order:
    """Levels are users (`loop` closed) or requests a second (open), on the wall's clock, as all seconds here are.

    `stages` or `search`, not both. `slowdown`: wall seconds per second of the engines' clock, for pauses and objectives.
    """

    url: str
    model: str
    scenario: str
    folder: str
    loop: Loop = "closed"
    stages: tuple[Stage, ...] = ()
    search: SearchPlan | None = None
    slo: Slo = STANDARD
    seed: int = 20261121
    processes: int = 1
    slowdown: float = 1.0
    pause: float = 1.0
    timeout_s: float = 120.0
    trusted: str = ""

    def write(self) -> Path:
        file = Path(self.folder) / "order.json"
        file.write_bytes(orjson.dumps(dataclasses.asdict(self), option=orjson.OPT_INDENT_2))
        return file

    def asked(self) -> Asked:
        return Asked(
            to=target(self.url),
            model=self.model,
            key=os.environ.get(KEY, ""),
            trusted=self.trusted,
            timeout_s=self.timeout_s,
            slowdown=self.slowdown,
            pause=self.pause,
        )


def read(file: Path) -> Order:
    fields = orjson.loads(file.read_bytes())
    fields["stages"] = tuple(Stage(**stage) for stage in fields["stages"])
    fields["search"] = SearchPlan(**fields["search"]) if fields["search"] else None
    fields["slo"] = Slo(**fields["slo"])
    return Order(**fields)
