"""Series of measurements on an engine, in order, while the machine is idle. Each `Measurement` has its parameters and the times of
its repeats."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from random import Random
from statistics import median
from typing import Any, Literal

from loadtest.content import WORDS, SeededImage
from loadtest.host_info import measure_cpu_share
from loadtest.statistics import percentile
from manyeyes.calibration.engine import CannotMeasure, Content, MeasuredEngine, TimedAnswer

IDLE_SAMPLE_S = 2.0
IDLE_TIMEOUT_S = 600.0


def wait_until_idle(below: float, timeout_s: float = IDLE_TIMEOUT_S) -> float:
    """Waits until less than the fraction `below` of all cores is in use, at most `timeout_s`. Returns the last CPU use."""
    deadline = time.monotonic() + timeout_s
    while (cpu_share := measure_cpu_share(IDLE_SAMPLE_S)) >= below and time.monotonic() < deadline:
        pass
    return cpu_share


Series = Literal["text", "decode", "fresh", "remembered", "known", "burst", "health", "prefix"]
TEXT_WORDS = (8, 100, 300, 800, 1600)
SIZES = ((288, 224), (512, 384), (800, 608), (1120, 832))  # multiples of 32, from 0.06 to 0.93 megapixels
BATCHES = (1, 2, 4, 8, 16)
DECODE_TOKENS = 64
LONG_WORDS = 800  # words of the prompts that measure the cost of context
BURST = 6  # concurrent images
HEALTH_REQUESTS, HEALTH_PAUSE_S = 4, 0.005  # while the images are in rendering


@dataclass(frozen=True)
class Measurement:
    """`times_s`: one time for each repeat. `x`: parameters by name (tokens, megapixels, concurrent requests)."""

    series: Series
    x: dict[str, float]
    times_s: tuple[float, ...]

    @property
    def first_quartile_s(self) -> float:
        """The first quartile: other work on the machine makes times longer, never shorter."""
        return percentile(self.times_s, 0.25)

    @property
    def median_s(self) -> float:
        """The median, for times between two arrivals: these are too short if the first arrival was seen late."""
        return percentile(self.times_s, 0.5)

    def line(self) -> dict[str, Any]:
        return {"series": self.series, **self.x, "times_s": [round(time_s, 6) for time_s in self.times_s]}


OVERLAP_RETRIES = 4
"""More attempts for a batch of which no repeat was answered at the same time, as on a busy host."""


@dataclass
class MeasurementSeries:
    """Measures one series after the other. `batches`: numbers of concurrent requests, at most what the engine runs.

    `batched_tokens`: the engine's --max-num-batched-tokens; its encoder cache has space for this many vision tokens.
    """

    engine: MeasuredEngine
    repeats: int
    batches: Sequence[int] = BATCHES
    batched_tokens: int = 4096
    seed: int = 1
    results: list[Measurement] = field(default_factory=list)
    prefix_cache: bool = False
    processor_cache: bool = False
    _number: int = 0

    def steps(self) -> list[tuple[str, Callable[[], None]]]:
        return [
            ("warming up", self.warm_up),
            ("first tokens of texts", self.texts),
            ("tokens, single and concurrent requests", self.decoding),
            ("images, new and cached", self.images),
            ("images, concurrent", self.bursts),
            ("the prefix cache", self.prefixes),
        ]

    def warm_up(self) -> None:
        """Sends requests that are not measured: the first image and the first batch are several times slower."""
        for _ in range(3):
            self.engine.ask(self._image_content(self._image(SIZES[0])), 4)
            self.engine.ask(self._image_content(self._image(SIZES[-1])), 4)
        self.engine.ask_together([self._unique_text(20) for _ in range(4)], 8)

    def texts(self) -> None:
        for words in TEXT_WORDS:
            try:
                answers = [self.engine.ask(self._unique_text(words), 1) for _ in range(self.repeats)]
            except CannotMeasure as error:
                if words > 100 and "context length" in str(error):
                    break  # its max_model_len is smaller; the shorter texts are enough
                raise
            x = {"words": float(words), "tokens": _median([answer.prompt_tokens for answer in answers])}
            self._record("text", x, [answer.first_s for answer in answers])

    def decoding(self) -> None:
        for words in (8, LONG_WORDS):
            for batch in self.batches if words == 8 else [size for size in self.batches if size in (1, 4)]:
                times: list[float] = []
                context = 0.0
                for attempt in range(self.repeats + OVERLAP_RETRIES):
                    if times and attempt >= self.repeats:
                        break
                    answers = self.engine.ask_together([self._unique_text(words) for _ in range(batch)], DECODE_TOKENS)
                    if (gap := token_s(answers)) is not None:
                        times.append(gap)
                    context = sum(answer.prompt_tokens + DECODE_TOKENS / 2 for answer in answers)
                if times:
                    self._record("decode", {"requests": batch, "context": context}, times)

    def images(self) -> None:
        """Measures each size three times: new; with cached pixels but not in the encoder's cache; completely cached."""
        for size in SIZES:
            images = [self._image(size) for _ in range(self.repeats)]
            x = {"megapixels": size[0] * size[1] / 1e6}
            first_answers = [self.engine.ask(self._image_content(image), 1) for image in images]
            x["tokens"] = _median([answer.prompt_tokens for answer in first_answers])
            self._record("fresh", x, [answer.first_s for answer in first_answers])
            hits = self.engine.metric("mm_cache_hits_total")
            known, remembered = [], []
            for image in images:
                self._evict_encoded()
                remembered.append(self.engine.ask(self._image_content(image), 1).first_s)
                known.append(self.engine.ask(self._image_content(image), 1).first_s)
            self.processor_cache = self.engine.metric("mm_cache_hits_total") > hits
            self._record("remembered", x, remembered)
            self._record("known", x, known)

    def bursts(self) -> None:
        """Measures concurrent new images, which pass the preprocessing thread one by one, and /health during that time."""
        for size in SIZES[1:3]:
            gaps: list[float] = []
            health: list[float] = []
            time_health = partial(self._time_health_requests, health)
            for _ in range(max(2, self.repeats // 2)):
                contents = [self._image_content(self._image(size)) for _ in range(BURST)]
                answers = self.engine.ask_together(contents, 1, time_health)
                first_tokens_s = sorted(answer.tokens_s[0] for answer in answers)
                gaps.append((first_tokens_s[-1] - first_tokens_s[0]) / (BURST - 1))
            x = {"megapixels": size[0] * size[1] / 1e6, "requests": float(BURST)}
            self._record("burst", x, gaps)
            self._record("health", x, health)

    def _time_health_requests(self, results_s: list[float]) -> None:
        """Appends the longest of a few /health requests: the first may arrive before the images."""
        times_s = []
        for _ in range(HEALTH_REQUESTS):
            times_s.append(self.engine.health_s())
            time.sleep(HEALTH_PAUSE_S)
        results_s.append(max(times_s))

    def prefixes(self) -> None:
        text = self._unique_text(300)
        self.engine.ask(text, 1)
        hits_before = self.engine.metric("prefix_cache_hits_total")
        second = self.engine.ask(text, 1)
        hits = self.engine.metric("prefix_cache_hits_total") - hits_before
        self.prefix_cache = hits > 0
        self._record("prefix", {"tokens": second.prompt_tokens, "cached": hits}, [second.first_s])

    def _evict_encoded(self) -> None:
        """Sends enough new images to evict all others from the vision encoder's cache (one batch of tokens)."""
        width, height = SIZES[-1]
        for _ in range(self.batched_tokens * 1024 // (width * height) + 1):
            self.engine.ask(self._image_content(self._image(SIZES[-1])), 1)

    def _record(self, series: Series, x: dict[str, float], times_s: Sequence[float]) -> None:
        self.results.append(Measurement(series, dict(x), tuple(times_s)))

    def _unique_text(self, number: int) -> str:
        """Returns a text with a unique beginning."""
        self._number += 1
        random = Random(f"{self.seed} {self._number}")
        return " ".join([f"{self._number}", *(random.choice(WORDS) for _ in range(number))])

    def _image(self, size: tuple[int, int]) -> SeededImage:
        self._number += 1
        return SeededImage("photo", f"calibrate {self.seed} {self._number}", size)

    def _image_content(self, image: SeededImage) -> Content:
        """A unique text followed by the image, so that the prefix cache does not match the image."""
        return [
            {"type": "text", "text": self._unique_text(6)},
            {"type": "image_url", "image_url": {"url": image.data_url()}},
        ]


def token_s(answers: Sequence[TimedAnswer]) -> float | None:
    """Mean time between two tokens while all requests are answered. None if they did not overlap."""
    begin = max(answer.tokens_s[0] for answer in answers)
    end = min(answer.tokens_s[-1] for answer in answers)
    gaps = [_gap(answer.tokens_s, begin, end) for answer in answers]
    known_gaps = [gap for gap in gaps if gap is not None]
    return sum(known_gaps) / len(known_gaps) if known_gaps else None


def _gap(tokens_s: Sequence[float], begin: float, end: float) -> float | None:
    inside = [at for at in tokens_s if begin <= at <= end]
    return (inside[-1] - inside[0]) / (len(inside) - 1) if len(inside) > 3 else None


def _median(values: Sequence[float]) -> float:
    return float(median(values))


def series(measurements: Sequence[Measurement], name: Series) -> Iterator[Measurement]:
    return (measurement for measurement in measurements if measurement.series == name)
