"""How much work one engine has, as it says itself. Pure: bytes and values in, values out."""

from dataclasses import dataclass, replace

SETTLED_S = 60.0
"""What /load counts while an engine has rested for so long is not there."""


@dataclass(frozen=True, slots=True)
class EngineLoad:
    """An engine's own counters at one probe. Totals count since its process started and begin anew with it."""

    at_s: float
    """When, on the monotonic clock."""
    in_flight: int
    """Requests that are inside it: from `/load` where it has that, else those that run and wait."""
    running: int = 0
    """In the batch that the GPU works on (vllm:num_requests_running)."""
    waiting: int = 0
    """In its queue (vllm:num_requests_waiting)."""
    kv_cache_share: float = 0.0
    """Used part of its KV cache, 0 to 1 (vllm:kv_cache_usage_perc)."""
    generation_tokens_total: float = 0.0
    """Tokens answered (vllm:generation_tokens_total)."""
    prompt_tokens_total: float = 0.0
    """Tokens read (vllm:prompt_tokens_total)."""
    preemptions_total: float = 0.0
    """Requests thrown back for want of KV cache (vllm:num_preemptions_total)."""
    iterations_total: float = 0.0
    """Steps of the engine core (vllm:iteration_tokens_total_count)."""
    queue_s_total: float = 0.0
    """Seconds that requests waited in its queue, all together (vllm:request_queue_time_seconds_sum)."""
    queue_requests_total: float = 0.0
    """How many requests those were (vllm:request_queue_time_seconds_count)."""
    tokens_per_s: float | None = None
    """Tokens answered per second since the previous probe; None at the first one."""

    @property
    def hidden_queue(self) -> int:
        """Requests that neither run nor wait: their pictures are being prepared on the CPU, where the engine's own counters read 0."""
        return max(0, self.in_flight - self.running - self.waiting)

    def progressed_since(self, before: "EngineLoad") -> bool:
        """Its work went on, or its process is another one. A request that ends or is given up is no work."""
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
"""vllm/v1/metrics/loggers.py in 0.32. A name that is missing there reads 0."""
STARTS = {key: b"\n" + name + b"{" for key, name in NAMES.items()}
MOST = 1e15
MOST_REQUESTS = 1_000_000
NEAR_BYTES = 4096
"""Between two probes a line moves by as many digits as the numbers before it have grown."""


@dataclass(frozen=True, slots=True)
class Counters:
    """What the metrics of one engine say; a data-parallel one says it once per rank, and the sums are here."""

    values: dict[str, float]
    asleep: bool
    places: dict[str, int]
    """Where each name was found, which makes the next probe of the same engine ten times cheaper."""


def read(text: bytes, places: dict[str, int]) -> Counters | None:
    """The few numbers that are needed of about 100 KB; None where the text is not vLLM's."""
    values: dict[str, float] = {}
    found: dict[str, int] = {}
    asleep = False
    for key, start in STARTS.items():
        near = max(0, places.get(key, 0) - NEAR_BYTES)
        at = text.find(start, near, near + 2 * NEAR_BYTES) if key in places else -1
        if at < 0:
            at = text.find(start)
        if at < 0:
            continue
        found[key] = at
        total, ranks = 0.0, 0
        while text.startswith(start, at):
            end = text.find(b"\n", at + 1)
            line = text[at + 1 : end if end >= 0 else len(text)]
            labels, _, number = line.rpartition(b" ")
            try:
                value = float(number)
            except ValueError:
                return None
            if not 0 <= value <= MOST:  # NaN, infinity, or what no engine counts
                return None
            if key == "sleep":
                asleep = asleep or (b'sleep_state="awake"' in labels and value == 0)
            total, ranks = total + value, ranks + 1
            at = end
            if end < 0:
                break
        if key in ("running", "waiting") and total > MOST_REQUESTS:
            return None
        values[key] = total / ranks if key == "kv_cache" else total
    if "generation_tokens" not in values and "running" not in values:
        return None
    return Counters(values, asleep, found)


class Loads:
    """From one probe of an engine to the next: what changed, and what /load counts wrongly.

    vLLM's /load drifts: a client that leaves at the wrong instant is taken off twice (vllm-project/vllm#49526), and a process
    without --enable-server-load-tracking always says 0. So it never counts for less than what runs and waits, and what it
    says of an engine that rests is its new zero.
    """

    def __init__(self) -> None:
        self.last: EngineLoad | None = None
        self.places: dict[str, int] = {}
        self._zero = 0
        self._resting: tuple[int, float] | None = None
        """What /load said while nothing ran, waited or moved, and since when it says so."""

    def take(self, at_s: float, counters: Counters, server_load: int | None) -> EngineLoad:
        """The load now. `server_load`: what /load says, None where there is no such path."""
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
    # A counter that went back belongs to a new process.
    return max(0.0, tokens - before.generation_tokens_total) / (at_s - before.at_s)
