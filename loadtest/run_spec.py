"""What one run of Locust is to do; a file that its processes read. The key is not in it: it stays in the environment."""

import dataclasses
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import orjson

from loadtest.http_client import parse_target
from loadtest.shapes import LoadStage, SearchPlan
from loadtest.statistics import STANDARD_OBJECTIVE, LatencyObjective
from loadtest.virtual_user import RequestSettings

_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)([smh])")
_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600}


def parse_duration(text: str) -> float:
    """90, 90s, 10m, 1h30m. Raises ValueError with one sentence."""
    plain = text.strip()
    if re.fullmatch(r"\d+(\.\d+)?", plain):
        plain += "s"
    parts = _DURATION_PART.findall(plain)
    total = sum(float(number) * _UNIT_SECONDS[unit] for number, unit in parts)
    if not total or "".join(number + unit for number, unit in parts) != plain:
        raise ValueError(f"a duration is written 90s, 10m or 2h, and is above 0; found {text!r}")
    return total


ORDER = "MANYEYES_LOADTEST_ORDER"
KEY = "MANYEYES_API_KEY"

Loop = Literal["closed", "open"]


@dataclass(frozen=True)
class RunSpec:
    """Levels are users (`loop` closed) or requests a second (open), on the wall's clock, as all seconds here are.

    `stages` or `search`, not both. `slowdown`: wall seconds per second of the engines' clock, for pauses and objectives.
    """

    url: str
    model: str
    scenario: str
    folder: str
    loop: Loop = "closed"
    stages: tuple[LoadStage, ...] = ()
    search: SearchPlan | None = None
    slo: LatencyObjective = STANDARD_OBJECTIVE
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

    def request_settings(self) -> RequestSettings:
        return RequestSettings(
            to=parse_target(self.url),
            model=self.model,
            key=os.environ.get(KEY, ""),
            trusted=self.trusted,
            timeout_s=self.timeout_s,
            slowdown=self.slowdown,
            pause=self.pause,
        )


def read_run_spec(file: Path) -> RunSpec:
    fields = orjson.loads(file.read_bytes())
    fields["stages"] = tuple(LoadStage(**stage) for stage in fields["stages"])
    fields["search"] = SearchPlan(**fields["search"]) if fields["search"] else None
    fields["slo"] = LatencyObjective(**fields["slo"])
    return RunSpec(**fields)
