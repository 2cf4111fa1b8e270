"""One request as its user saw it, a line of requests.jsonl; and the service level objective that it met or missed."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson


@dataclass(frozen=True, slots=True)
class Sample:
    """`began_s` is when it was due, in seconds since 1970; every other time is in seconds from there.

    In a closed loop a request is due when its user asks. In an open loop it is due when the arrival is, however late the
    load generator was (`late_s`): otherwise a busy generator would hide the wait.
    """

    scenario: str
    user: int
    turn: int
    began_s: float
    late_s: float
    first_s: float  # 0 when no token came
    total_s: float
    tokens: int
    prompt_tokens: int
    cached_tokens: int
    video: bool
    status: int  # 0 when there was no answer at all
    failed: str  # empty: it counts
    engine: str = ""
    pool: str = ""
    id: str = ""  # X-Request-Id, as the gateway's log has it

    @property
    def ended_s(self) -> float:
        return self.began_s + self.total_s

    @property
    def token_s(self) -> float:
        """Time per output token after the first one (TPOT); 0 where there is no second one."""
        return (self.total_s - self.first_s) / (self.tokens - 1) if self.tokens > 1 and self.first_s else 0.0

    def line(self) -> bytes:
        return orjson.dumps(asdict(self)) + b"\n"


def read_samples(file: Path) -> Iterator[Sample]:
    """Samples of a file; a last line that was cut off by a full disk or a kill is left out."""
    if not file.exists():
        return
    for line in file.read_bytes().splitlines():
        try:
            yield Sample(**orjson.loads(line))
        except (orjson.JSONDecodeError, TypeError):
            continue


@dataclass(frozen=True)
class LatencyObjective:
    """Times are seconds of the engines' clock. `share`: of requests that have to keep both, and to be answered at all."""

    first_s: float = 2.0
    total_s: float = 5.0
    share: float = 0.95

    def is_met_by(self, sample: Sample, slowdown: float = 1.0) -> bool:
        if sample.failed or not sample.first_s:
            return False
        return sample.first_s <= self.first_s * slowdown and sample.total_s <= self.total_s * slowdown

    def __str__(self) -> str:
        return f"{self.share:.0%} of requests answered within {self.total_s:g} s, their first token within {self.first_s:g} s"


STANDARD_OBJECTIVE = LatencyObjective()


def parse_slo(text: str) -> LatencyObjective:
    """From `first=2,total=5,share=0.95`, any of them. Raises ValueError with one sentence."""
    given: dict[str, float] = {}
    for word in filter(None, (part.strip() for part in text.split(","))):
        name, _, value = word.partition("=")
        try:
            number = float(value)
        except ValueError:
            number = -1.0
        if name not in ("first", "total", "share") or number <= 0 or (name == "share" and number > 1):
            raise ValueError(f"an SLO is written first=2,total=5,share=0.95 (seconds, and 0 to 1); found {word!r}")
        given[name if name == "share" else f"{name}_s"] = number
    return LatencyObjective(**given)
