"""Statistics of a run: percentiles, spreads, and the rates and latencies of a time window. Pure."""

import contextlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import orjson

from loadtest.result_files import read_lines


@dataclass(frozen=True, slots=True)
class Sample:
    """One request. `began_s`: when it was due, in seconds since 1970. All other times are seconds since then.

    In a closed loop a request is due when its user sends it. In an open loop it is due at its arrival time, even if the
    load generator sent it later (`late_s`): otherwise a busy generator would hide the waiting time.
    """

    scenario: str
    user: int
    turn: int
    began_s: float
    late_s: float
    first_s: float  # 0 if no token arrived
    total_s: float
    tokens: int
    prompt_tokens: int
    cached_tokens: int | None  # None if the engine does not report it (gateway.report_cached_tokens)
    video: bool
    status: int  # 0 if there was no response
    failed: str  # the reason; empty if the request was answered
    engine: str = ""
    pool: str = ""
    id: str = ""  # X-Request-Id, as the gateway's log has it

    @property
    def ended_s(self) -> float:
        return self.began_s + self.total_s

    @property
    def token_s(self) -> float:
        """Time per output token after the first (TPOT), in seconds; 0 if there is no second token."""
        return (self.total_s - self.first_s) / (self.tokens - 1) if self.tokens > 1 and self.first_s else 0.0

    def line(self) -> bytes:
        return orjson.dumps(asdict(self)) + b"\n"


def read_samples(file: Path) -> Iterator[Sample]:
    """Yields the samples of a file; skips lines that are not samples."""
    for fields in read_lines(file):
        with contextlib.suppress(TypeError):
            yield Sample(**fields)


@dataclass(frozen=True)
class LatencyObjective:
    """Times are seconds of the engines' clock. `share`: fraction of requests that must be answered within both times."""

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
    """Parses `first=2,total=5,share=0.95`; each part is optional. Raises ValueError with a one-sentence message."""
    fields: dict[str, float] = {}
    for word in filter(None, (part.strip() for part in text.split(","))):
        name, _, value = word.partition("=")
        try:
            number = float(value)
        except ValueError:
            number = -1.0
        if name not in ("first", "total", "share") or number <= 0 or (name == "share" and number > 1):
            raise ValueError(f"SLO: expected first=2,total=5,share=0.95 (seconds; share from 0 to 1), got {word!r}")
        fields[name if name == "share" else f"{name}_s"] = number
    return LatencyObjective(**fields)


def percentile(values: Sequence[float], share: float) -> float:
    """The quantile `share` (0 to 1) of the values, with linear interpolation; 0 if there are no values."""
    ordered = sorted(values)
    if not ordered:
        return 0.0
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def median(values: Sequence[float]) -> float:
    return percentile(values, 0.5)


@dataclass(frozen=True)
class Spread:
    """The values of a figure in all repeats; at least one."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return median(self.values)

    @property
    def low(self) -> float:
        return min(self.values)

    @property
    def high(self) -> float:
        return max(self.values)

    def overlaps(self, other: "Spread") -> bool:
        return self.low <= other.high and other.low <= self.high


def spread(values: Sequence[float | None]) -> Spread | None:
    """Returns None if there is no value."""
    known = tuple(value for value in values if value is not None)
    return Spread(known) if known else None


@dataclass(frozen=True)
class Window:
    """A time window, in seconds since 1970."""

    start_s: float
    end_s: float

    @property
    def seconds(self) -> float:
        return max(1e-9, self.end_s - self.start_s)


@dataclass(frozen=True)
class RunFigures:
    """Figures of one window. Percentiles are of answers that ended in it.

    `rps` counts each good answer by the fraction of its duration that is inside the window. A count of complete answers
    would depend on which of them happen to end just before or after the edges of the window.
    """

    rps: float = 0.0
    goodput_rps: float = 0.0
    answered: int = 0
    failed: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    kept_share: float = 0.0
    total_p50_s: float = 0.0
    total_p95_s: float = 0.0
    total_p99_s: float = 0.0
    first_p50_s: float = 0.0
    first_p95_s: float = 0.0
    first_p99_s: float = 0.0
    token_p50_s: float = 0.0
    token_p95_s: float = 0.0
    tokens_per_s: float = 0.0
    cached_share: float | None = None
    """None if no answer reported cached tokens."""
    videos: int = 0
    videos_answered: int = 0
    per_engine: dict[str, int] = field(default_factory=dict)
    late_p99_s: float = 0.0

    @property
    def video_success(self) -> float | None:
        return self.videos_answered / self.videos if self.videos else None

    @property
    def balance(self) -> float:
        """Answers of the busiest engine divided by those of the least busy; 1 is even, 0 if no engine is known."""
        counts = self.per_engine.values()
        return max(counts) / max(1, min(counts)) if counts else 0.0


def figures(samples: Iterable[Sample], window: Window, slo: LatencyObjective, slowdown: float = 1.0) -> RunFigures:
    """Computes the figures of a window. `slowdown`: wall-clock seconds per second of the engines' clock."""
    seconds = window.seconds / slowdown
    rps = good_rps = 0.0
    ended: list[Sample] = []
    for sample in samples:
        if window.start_s <= sample.ended_s < window.end_s:
            ended.append(sample)
        if not sample.failed:
            part = _inside(sample, window)
            rps += part
            good_rps += part * slo.is_met_by(sample, slowdown)
    good = [sample for sample in ended if not sample.failed]
    bad = [sample for sample in ended if sample.failed]
    within_slo = sum(slo.is_met_by(sample, slowdown) for sample in ended)
    totals, firsts, gaps = _times(good, slowdown)
    reporting = [(sample.cached_tokens, sample.prompt_tokens) for sample in good if sample.cached_tokens is not None]
    prompt = sum(prompt_tokens for _, prompt_tokens in reporting)
    return RunFigures(
        rps=rps / seconds,
        goodput_rps=good_rps / seconds,
        answered=len(good),
        failed=len(bad),
        errors=dict(Counter(sample.failed for sample in bad).most_common()),
        kept_share=within_slo / len(ended) if ended else 0.0,
        total_p50_s=percentile(totals, 0.5),
        total_p95_s=percentile(totals, 0.95),
        total_p99_s=percentile(totals, 0.99),
        first_p50_s=percentile(firsts, 0.5),
        first_p95_s=percentile(firsts, 0.95),
        first_p99_s=percentile(firsts, 0.99),
        token_p50_s=percentile(gaps, 0.5),
        token_p95_s=percentile(gaps, 0.95),
        tokens_per_s=sum(sample.tokens for sample in good) / seconds,
        cached_share=sum(cached for cached, _ in reporting) / prompt if prompt else None,
        videos=sum(sample.video for sample in ended),
        videos_answered=sum(sample.video for sample in good),
        per_engine=dict(sorted(Counter(sample.engine for sample in good if sample.engine).items())),
        late_p99_s=percentile([sample.late_s for sample in ended], 0.99) / slowdown,
    )


def _inside(sample: Sample, window: Window) -> float:
    """Fraction of the request's duration that is inside the window (0 to 1)."""
    overlap = min(sample.ended_s, window.end_s) - max(sample.began_s, window.start_s)
    if sample.total_s <= 0:
        return float(window.start_s <= sample.began_s < window.end_s)
    return max(0.0, overlap) / sample.total_s


def _times(good: Sequence[Sample], slowdown: float) -> tuple[list[float], list[float], list[float]]:
    totals = [sample.total_s / slowdown for sample in good]
    firsts = [sample.first_s / slowdown for sample in good]
    return totals, firsts, [sample.token_s / slowdown for sample in good if sample.tokens > 1]
