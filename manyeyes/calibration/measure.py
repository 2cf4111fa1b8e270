"""What is measured on an engine, in which order, once the machine is idle. Each `Measurement` is what was asked, and the times
of its repeats."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from random import Random
from statistics import median
from typing import Any, Literal

from loadtest.content import WORDS, SeededPicture
from loadtest.host_info import measure_cpu_share
from loadtest.statistics import percentile
from manyeyes.calibration.engine import CannotMeasure, Content, MeasuredEngine, TimedAnswer

IDLE_SAMPLE_S = 2.0
IDLE_TIMEOUT_S = 600.0


def wait_until_idle(below: float, patience_s: float = IDLE_TIMEOUT_S) -> float:
    """Until less than the share `below` of all cores was used for LOOK_S, or patience ends. Says what was used last."""
    until = time.monotonic() + patience_s
    while (used := measure_cpu_share(IDLE_SAMPLE_S)) >= below and time.monotonic() < until:
        pass
    return used


Series = Literal["text", "decode", "fresh", "remembered", "known", "burst", "health", "prefix"]
TEXT_WORDS = (8, 100, 300, 800, 1600)
SIZES = ((288, 224), (512, 384), (800, 608), (1120, 832))  # multiples of 32, from 0.06 to 0.93 megapixels
BATCHES = (1, 2, 4, 8, 16)
DECODE_TOKENS = 64
LONG_WORDS = 800  # of the prompts that show what context costs
BURST = 6  # pictures at once
HEALTH_LOOKS, HEALTH_PAUSE_S = 4, 0.005  # while they are in rendering


@dataclass(frozen=True)
class Measurement:
    """`times_s`: one for each repeat. `x`: what it depends on, by name (tokens, megapixels, requests at once)."""

    series: Series
    x: dict[str, float]
    times_s: tuple[float, ...]

    @property
    def quick_s(self) -> float:
        """The quicker quarter's last: whatever else a machine does makes times longer, never shorter."""
        return percentile(self.times_s, 0.25)

    @property
    def middle_s(self) -> float:
        """For times between two arrivals: those come out too short when the first one was seen late."""
        return percentile(self.times_s, 0.5)

    def line(self) -> dict[str, Any]:
        return {"series": self.series, **self.x, "times_s": [round(one, 6) for one in self.times_s]}


OVERLAP_RETRIES = 4
"""More attempts for a batch of which no repeat was answered at the same time, as on a busy host."""


@dataclass
class MeasurementSeries:
    """Measures one series after the other. `batches`: how many requests at once; no more than the engine runs."""

    engine: MeasuredEngine
    repeats: int
    batches: Sequence[int] = BATCHES
    batched_tokens: int = 4096  # the engine's --max-num-batched-tokens: so many vision tokens stay encoded
    seed: int = 1
    seen: list[Measurement] = field(default_factory=list)
    prefix_cache: bool = False
    processor_cache: bool = False
    _number: int = 0

    def steps(self) -> list[tuple[str, Callable[[], None]]]:
        return [
            ("warming up", self.warm_up),
            ("first tokens of texts", self.texts),
            ("tokens, alone and together", self.decoding),
            ("pictures, new and known", self.pictures),
            ("pictures, several at once", self.bursts),
            ("the prefix cache", self.prefixes),
        ]

    def warm_up(self) -> None:
        """The first picture is several times slower, and so is the first batch."""
        for _ in range(3):
            self.engine.ask(self._about(self._picture(SIZES[0])), 4)
            self.engine.ask(self._about(self._picture(SIZES[-1])), 4)
        self.engine.ask_together([self._words(20) for _ in range(4)], 8)

    def texts(self) -> None:
        for words in TEXT_WORDS:
            try:
                answers = [self.engine.ask(self._words(words), 1) for _ in range(self.repeats)]
            except CannotMeasure as error:
                if words > 100 and "context length" in str(error):
                    break  # its max_model_len is smaller; the shorter ones tell enough
                raise
            x = {"words": float(words), "tokens": _middle([one.prompt_tokens for one in answers])}
            self._keep("text", x, [one.first_s for one in answers])

    def decoding(self) -> None:
        for words in (8, LONG_WORDS):
            for batch in self.batches if words == 8 else [one for one in self.batches if one in (1, 4)]:
                times: list[float] = []
                context = 0.0
                for attempt in range(self.repeats + OVERLAP_RETRIES):
                    if len(times) == self.repeats or (times and attempt >= self.repeats):
                        break
                    answers = self.engine.ask_together([self._words(words) for _ in range(batch)], DECODE_TOKENS)
                    if (gap := token_s(answers)) is not None:
                        times.append(gap)
                    context = sum(one.prompt_tokens + DECODE_TOKENS / 2 for one in answers)
                if times:
                    self._keep("decode", {"requests": batch, "context": context}, times)

    def pictures(self) -> None:
        """Each size three times: new; with its pixels still known but no longer encoded; with everything known."""
        for size in SIZES:
            names = [self._picture(size) for _ in range(self.repeats)]
            x = {"megapixels": size[0] * size[1] / 1e6}
            fresh = [self.engine.ask(self._about(one), 1) for one in names]
            x["tokens"] = _middle([one.prompt_tokens for one in fresh])
            self._keep("fresh", x, [one.first_s for one in fresh])
            hits = self.engine.metric("mm_cache_hits_total")
            known, remembered = [], []
            for one in names:
                self._push_out_encoded()
                remembered.append(self.engine.ask(self._about(one), 1).first_s)
                known.append(self.engine.ask(self._about(one), 1).first_s)
            self.processor_cache = self.engine.metric("mm_cache_hits_total") > hits
            self._keep("remembered", x, remembered)
            self._keep("known", x, known)

    def bursts(self) -> None:
        """Several new pictures at once: one after the other through the preprocessing thread. And what /health does."""
        for size in SIZES[1:3]:
            gaps: list[float] = []
            health: list[float] = []
            look = partial(self._look_at_health, health)
            for _ in range(max(2, self.repeats // 2)):
                contents = [self._about(self._picture(size)) for _ in range(BURST)]
                answers = self.engine.ask_together(contents, 1, look)
                firsts = sorted(one.tokens_s[0] for one in answers)
                gaps.append((firsts[-1] - firsts[0]) / (BURST - 1))
            x = {"megapixels": size[0] * size[1] / 1e6, "requests": float(BURST)}
            self._keep("burst", x, gaps)
            self._keep("health", x, health)

    def _look_at_health(self, found: list[float]) -> None:
        """The longest of a few looks: the first may come before the pictures do."""
        looks = []
        for _ in range(HEALTH_LOOKS):
            looks.append(self.engine.health_s())
            time.sleep(HEALTH_PAUSE_S)
        found.append(max(looks))

    def prefixes(self) -> None:
        text = self._words(300)
        self.engine.ask(text, 1)
        again = self.engine.ask(text, 1)
        self.prefix_cache = again.cached_tokens > 0
        self._keep("prefix", {"tokens": again.prompt_tokens, "cached": again.cached_tokens}, [again.first_s])

    def _push_out_encoded(self) -> None:
        """Enough new pictures that the vision encoder's cache (one batch of tokens) holds no older one."""
        width, height = SIZES[-1]
        for _ in range(self.batched_tokens * 1024 // (width * height) + 1):
            self.engine.ask(self._about(self._picture(SIZES[-1])), 1)

    def _keep(self, series: Series, x: dict[str, float], times_s: Sequence[float]) -> None:
        self.seen.append(Measurement(series, dict(x), tuple(times_s)))

    def _words(self, number: int) -> str:
        """A text that no other begins like."""
        self._number += 1
        random = Random(f"{self.seed} {self._number}")
        return " ".join([f"{self._number}", *(random.choice(WORDS) for _ in range(number))])

    def _picture(self, size: tuple[int, int]) -> SeededPicture:
        self._number += 1
        return SeededPicture("photo", f"calibrate {self.seed} {self._number}", size)

    def _about(self, picture: SeededPicture) -> Content:
        """The text comes first and is always another one, so that the prefix cache knows nothing of the picture."""
        return [
            {"type": "text", "text": self._words(6)},
            {"type": "image_url", "image_url": {"url": picture.data_url()}},
        ]


def token_s(answers: Sequence[TimedAnswer]) -> float | None:
    """Mean time between two tokens while all of them are answered. None when they were not at the same time."""
    begin = max(one.tokens_s[0] for one in answers)
    end = min(one.tokens_s[-1] for one in answers)
    gaps = [_gap(one.tokens_s, begin, end) for one in answers]
    found = [gap for gap in gaps if gap is not None]
    return sum(found) / len(found) if found else None


def _gap(tokens_s: Sequence[float], begin: float, end: float) -> float | None:
    inside = [at for at in tokens_s if begin <= at <= end]
    return (inside[-1] - inside[0]) / (len(inside) - 1) if len(inside) > 3 else None


def _middle(values: Sequence[float]) -> float:
    return float(median(values))


def series(seen: Sequence[Measurement], name: Series) -> Iterator[Measurement]:
    return (one for one in seen if one.series == name)
