"""Parses an engine's load from its own counters (vLLM's /metrics and /load). Pure."""

from dataclasses import dataclass, replace

SETTLED_S = 60.0
"""After an engine has been idle for this long, the requests that /load still counts do not exist."""


@dataclass(frozen=True, slots=True)
class EngineLoad:
    """An engine's own counters at one probe. Totals start at 0 with its process."""

    at_s: float
    """Time of the probe, on the monotonic clock."""
    in_flight: int
    """Requests inside the engine: from `/load` if it has that, else running plus waiting requests."""
    running: int = 0
    """Requests in the batch that the GPU processes (vllm:num_requests_running)."""
    waiting: int = 0
    """Requests in its queue (vllm:num_requests_waiting)."""
    kv_cache_share: float = 0.0
    """Used part of its KV cache, 0 to 1 (vllm:kv_cache_usage_perc)."""
    generation_tokens_total: float = 0.0
    """Generated tokens (vllm:generation_tokens_total)."""
    prompt_tokens_total: float = 0.0
    """Prompt tokens (vllm:prompt_tokens_total)."""
    preemptions_total: float = 0.0
    """Requests preempted because the KV cache was full (vllm:num_preemptions_total)."""
    iterations_total: float = 0.0
    """Steps of the engine core (vllm:iteration_tokens_total_count)."""
    queue_s_total: float = 0.0
    """Total seconds that requests waited in its queue (vllm:request_queue_time_seconds_sum)."""
    queue_requests_total: float = 0.0
    """Number of requests that left its queue (vllm:request_queue_time_seconds_count)."""
    tokens_per_s: float | None = None
    """Tokens generated per second since the previous probe; None at the first probe."""

    @property
    def hidden_queue(self) -> int:
        """Requests whose images are being prepared on the CPU. vLLM's gauges of running and waiting exclude them."""
        return max(0, self.in_flight - self.running - self.waiting)

    def progressed_since(self, before: "EngineLoad") -> bool:
        """Whether it made progress, or its process was replaced.

        A request that finishes or is aborted is not progress.
        """
        return (self.generation_tokens_total, self.prompt_tokens_total, self.iterations_total) != (
            before.generation_tokens_total,
            before.prompt_tokens_total,
            before.iterations_total,
        )


NAMES = {
    "running": b"vllm:num_requests_running",
    "waiting": b"vllm:num_requests_waiting",
    "kv_cache": b"vllm:kv_cache_usage_perc",
    "generation_tokens": b"vllm:generation_tokens_total",
    "prompt_tokens": b"vllm:prompt_tokens_total",
    "preemptions": b"vllm:num_preemptions_total",
    "iterations": b"vllm:iteration_tokens_total_count",
    "queue_time_s": b"vllm:request_queue_time_seconds_sum",
    "queue_requests": b"vllm:request_queue_time_seconds_count",
    "sleep": b"vllm:engine_sleep_state",
}
"""Source: vllm/v1/metrics/loggers.py in 0.32. A name that an engine does not report counts as 0."""
STARTS = {key: b"\n" + name + b"{" for key, name in NAMES.items()}
MAX_VALUE = 1e15
MAX_REQUESTS = 1_000_000
NEAR_BYTES = 4096
"""Search range around a line's last position: between two probes it moves by the digits that earlier numbers gained."""


@dataclass(frozen=True, slots=True)
class Counters:
    """The metrics of one engine. A data-parallel engine reports each once per rank; the values are the sums."""

    values: dict[str, float]
    asleep: bool
    places: dict[str, int]
    """The position of each name in the text, which makes the next probe of the same engine ten times cheaper."""


def read(text: bytes, places: dict[str, int]) -> Counters | None:
    """Extracts the few required numbers from about 100 KB of text; None when the text is not vLLM's."""
    values: dict[str, float] = {}
    found_places: dict[str, int] = {}
    asleep = False
    for key, start in STARTS.items():
        near = max(0, places.get(key, 0) - NEAR_BYTES)
        at = text.find(start, near, near + 2 * NEAR_BYTES) if key in places else -1
        if at < 0:
            at = text.find(start)
        if at < 0:
            continue
        found_places[key] = at
        total, ranks = 0.0, 0
        while text.startswith(start, at):
            end = text.find(b"\n", at + 1)
            line = text[at + 1 : end if end >= 0 else len(text)]
            labels, _, number = line.rpartition(b" ")
            try:
                value = float(number)
            except ValueError:
                return None
            if not 0 <= value <= MAX_VALUE:  # NaN, infinity, or a value that no engine can reach
                return None
            if key == "sleep":
                asleep = asleep or (b'sleep_state="awake"' in labels and value == 0)
            total, ranks = total + value, ranks + 1
            at = end
            if end < 0:
                break
        if key in ("running", "waiting") and total > MAX_REQUESTS:
            return None
        values[key] = total / ranks if key == "kv_cache" else total
    if "generation_tokens" not in values and "running" not in values:
        return None
    return Counters(values, asleep, found_places)


class Loads:
    """Compares successive probes of one engine and corrects the drift of /load.

    vLLM's /load drifts: a client that disconnects at the wrong moment is subtracted twice (vllm-project/vllm#49526),
    and a process without --enable-server-load-tracking always reports 0. So the value is never lower than running plus
    waiting requests, and the value that /load reports for an idle engine becomes its new zero.
    """

    def __init__(self) -> None:
        self.last: EngineLoad | None = None
        self.places: dict[str, int] = {}
        self._zero = 0
        self._resting: tuple[int, float] | None = None
        """The value that /load reports while the engine is idle, and since when it reports it."""

    def take(self, at_s: float, counters: Counters, server_load: int | None) -> EngineLoad:
        """Computes the load. `server_load` is the value of /load, None when the engine has no such path."""
        self.places = counters.places
        values, before = counters.values, self.last
        running, waiting = int(values.get("running", 0)), int(values.get("waiting", 0))
        tokens = values.get("generation_tokens", 0.0)
        load = EngineLoad(
            at_s=at_s,
            in_flight=running + waiting,
            running=running,
            waiting=waiting,
            kv_cache_share=values.get("kv_cache", 0.0),
            generation_tokens_total=tokens,
            prompt_tokens_total=values.get("prompt_tokens", 0.0),
            preemptions_total=values.get("preemptions", 0.0),
            iterations_total=values.get("iterations", 0.0),
            queue_s_total=values.get("queue_time_s", 0.0),
            queue_requests_total=values.get("queue_requests", 0.0),
            tokens_per_s=_rate(before, at_s, tokens),
        )
        if server_load is not None:
            rests = running + waiting == 0 and before is not None and not load.progressed_since(before)
            counted = self._counted(at_s, server_load, rests)
            load = replace(load, in_flight=max(counted, running + waiting))
        self.last = load
        return load

    def _counted(self, at_s: float, server_load: int, rests: bool) -> int:
        if not rests:
            self._resting = None
        elif self._resting is None or self._resting[0] != server_load:
            self._resting = (server_load, at_s)
        elif server_load < self._zero or at_s - self._resting[1] >= SETTLED_S:
            self._zero = server_load
        if server_load < min(0, self._zero):
            self._zero = server_load
        return server_load - self._zero


def _rate(before: EngineLoad | None, at_s: float, tokens: float) -> float | None:
    if before is None or at_s <= before.at_s:
        return None
    # A counter that decreased belongs to a new process.
    return max(0.0, tokens - before.generation_tokens_total) / (at_s - before.at_s)
