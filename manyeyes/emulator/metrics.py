"""The metrics of /metrics, with names, labels and buckets as in vLLM 0.32 (vllm/v1/metrics/loggers.py).

Metrics that the emulator does not emulate are left out.
"""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from manyeyes.simulator.request import RunningSequence

LABELS = ("model_name", "engine")
FINISH_REASONS = ("stop", "length", "abort", "error", "repetition")
PROMPT_SOURCES = ("local_compute", "local_cache_hit", "external_kv_transfer")
SLEEP_STATES = ("awake", "weights_offloaded", "discard_all")
REJECTIONS = ("max_num_queued_reqs", "max_num_queued_tokens")

FIRST_TOKEN_S = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
)
INTER_TOKEN_S = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0),
)
LATENCY_S = (
    *(0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0),
    *(120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0),
)
ITERATION_TOKENS = (1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)


class Metrics:
    def __init__(self, model_name: str) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._labels = (model_name, "0")

        self._running = self._gauge("num_requests_running", "Number of requests in model execution batches.")
        self._waiting = self._gauge("num_requests_waiting", "Number of requests waiting to be processed.")
        self._kv_usage = self._gauge("kv_cache_usage_perc", "KV-cache usage. 1 means 100 percent usage.")

        self.prompt_tokens = self._counter("prompt_tokens", "Number of prefill tokens processed.")
        self.prompt_tokens_cached = self._counter("prompt_tokens_cached", "Number of cached prompt tokens.")
        self.generation_tokens = self._counter("generation_tokens", "Number of generation tokens processed.")
        self.prefix_queries = self._counter(
            "prefix_cache_queries", "Prefix cache queries, in terms of number of queried tokens."
        )
        self.prefix_hits = self._counter("prefix_cache_hits", "Prefix cache hits, in terms of number of cached tokens.")
        self.mm_queries = self._counter("mm_cache_queries", "Multi-modal cache queries, in terms of number of items.")
        self.mm_hits = self._counter("mm_cache_hits", "Multi-modal cache hits, in terms of number of cached items.")
        # Not a vLLM metric: it replaces the GPU use that a real driver reports.
        self.busy_s = Counter(
            "emulator:busy_seconds",
            "Time that the emulated GPU worked.",
            LABELS,
            registry=self.registry,
        ).labels(*self._labels)
        self.preemptions = self._counter("num_preemptions", "Cumulative number of preemption from the engine.")
        finished = self._labelled("request_success", "Count of successfully processed requests.", "finished_reason")
        self.finished = {reason: finished.labels(*self._labels, reason) for reason in FINISH_REASONS}
        sources = self._labelled("prompt_tokens_by_source", "Number of prompt tokens by source.", "source")
        self._by_source = {source: sources.labels(*self._labels, source) for source in PROMPT_SOURCES}
        rejected = Counter(
            "vllm:admission_rejections",
            "Number of admission attempts rejected by a queue limit, by reason.",
            ("model_name", "reason"),
            registry=self.registry,
        )
        self.rejections = {reason: rejected.labels(model_name, reason) for reason in REJECTIONS}

        states = Gauge(
            "vllm:engine_sleep_state",
            "Engine sleep state; awake = 0 means engine is sleeping.",
            (*LABELS, "sleep_state"),
            registry=self.registry,
        )
        self._sleep_states = {state: states.labels(*self._labels, state) for state in SLEEP_STATES}
        self.show_sleep(None)

        self.first_token_s = self._histogram("time_to_first_token_seconds", "Time to first token.", FIRST_TOKEN_S)
        self.inter_token_s = self._histogram("inter_token_latency_seconds", "Inter-token latency.", INTER_TOKEN_S)
        self.latency_s = self._histogram("e2e_request_latency_seconds", "End-to-end request latency.", LATENCY_S)
        self.queue_time_s = self._histogram("request_queue_time_seconds", "Time in the WAITING phase.", LATENCY_S)
        self.prefill_s = self._histogram("request_prefill_time_seconds", "Time in the PREFILL phase.", LATENCY_S)
        self.decode_s = self._histogram("request_decode_time_seconds", "Time in the DECODE phase.", LATENCY_S)
        self.inference_s = self._histogram("request_inference_time_seconds", "Time in the RUNNING phase.", LATENCY_S)
        self.iteration_tokens = self._histogram("iteration_tokens_total", "Tokens per engine_step.", ITERATION_TOKENS)

    def watch(self, running: Callable[[], float], waiting: Callable[[], float], kv_usage: Callable[[], float]) -> None:
        """Sets the functions that return the values of gauges at scrape time."""
        self._running.set_function(running)
        self._waiting.set_function(waiting)
        self._kv_usage.set_function(kv_usage)

    def show_sleep(self, level: int | None) -> None:
        shown = {"awake": level is None, "weights_offloaded": level == 1, "discard_all": level == 2}
        for state, gauge in self._sleep_states.items():
            gauge.set(shown[state])

    def count_first_token(self, sequence: RunningSequence) -> None:
        """Counts a computed prompt. Like vLLM, it counts all tokens, including those found in the cache."""
        prompt, cached = len(sequence.job.prompt), sequence.cached
        self.prompt_tokens.inc(prompt)
        self.prompt_tokens_cached.inc(cached)
        self._by_source["local_compute"].inc(prompt - cached)
        self._by_source["local_cache_hit"].inc(cached)
        self.first_token_s.observe(sequence.first_token - sequence.arrived)

    def count_finished(self, sequence: RunningSequence) -> None:
        self.finished[sequence.job.finish_reason].inc()
        self.latency_s.observe(sequence.last_token - sequence.arrived)
        self.queue_time_s.observe(sequence.scheduled - sequence.queued)
        self.prefill_s.observe(sequence.first_token - sequence.scheduled)
        self.decode_s.observe(sequence.last_token - sequence.first_token)
        self.inference_s.observe(sequence.last_token - sequence.scheduled)

    def text(self) -> bytes:
        return generate_latest(self.registry)

    def _gauge(self, name: str, documentation: str) -> Gauge:
        return Gauge(f"vllm:{name}", documentation, LABELS, registry=self.registry).labels(*self._labels)

    def _counter(self, name: str, documentation: str) -> Counter:
        return Counter(f"vllm:{name}", documentation, LABELS, registry=self.registry).labels(*self._labels)

    def _labelled(self, name: str, documentation: str, label: str) -> Counter:
        return Counter(f"vllm:{name}", documentation, (*LABELS, label), registry=self.registry)

    def _histogram(self, name: str, documentation: str, buckets: tuple[float, ...]) -> Histogram:
        made = Histogram(f"vllm:{name}", documentation, LABELS, buckets=buckets, registry=self.registry)
        return made.labels(*self._labels)
