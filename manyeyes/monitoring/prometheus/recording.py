"""The recording rules, by level: pool, pool_engine, gpu, cluster.

`manyeyes_requests_total` and similar metrics are what users saw (the gateway's log); `vllm:...` metrics come from the
engines. A share has no sample while there are no requests, so that an idle pool counts neither as good nor as bad.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class RecordingRule:
    """A series that Prometheus computes in advance."""

    name: str
    """level:metric:operations, as Prometheus recommends: https://prometheus.io/docs/practices/rules/"""
    expr: str
    """PromQL, with the ranges that are used in production."""
    help: str
    """What it means and its unit, in a sentence."""


@dataclass(frozen=True)
class AlertRule:
    """A condition that requires action by an operator."""

    name: str
    expr: str
    for_: str
    """How long the condition must be true: 2m."""
    severity: Literal["page", "ticket"]
    """page: wakes an operator. ticket: can wait until the morning."""
    summary: str
    """One sentence that names the pool or the engine."""
    keep_firing_for: str = "0s"
    """How long it continues to fire after the condition was last true, to prevent flapping."""


@dataclass(frozen=True)
class RuleGroup:
    """Rules that are evaluated together, one after the other."""

    name: str
    rules: tuple[RecordingRule | AlertRule, ...]
    slow: bool = False
    """Evaluated every 30 s and not at every scrape interval, because it covers hours."""
    gpu: bool = False
    """Only if NVIDIA's exporter runs."""


WINDOWS = {"5m": "five minutes", "30m": "half an hour", "1h": "an hour", "6h": "six hours"}
"""The windows of burn rates (manyeyes/monitoring/prometheus/alerts.py)."""
QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
COUNTED = 'status=~"[235].."'
"""Requests that count for the availability objective. A 4xx does not: the client or a limit causes it."""
SERVING = 'state=~"up|suspect"'


def rate(counter: str, by: str, window: str, where: str = "") -> str:
    """Query for the rate of a counter per second. Requests without a pool, such as a list of models, are excluded."""
    matchers = ", ".join(filter(None, ('pool!=""' if counter == "manyeyes_requests_total" else "", where)))
    selector = f"{counter}{{{matchers}}}" if matchers else counter
    return f"sum by ({by}) (rate({selector}[{window}]))"


def share(numerator: str, denominator: str, zero_query: str = "") -> str:
    """Query for `numerator` / `denominator`; no sample where `denominator` is 0.

    `zero_query`: a query with the labels for which a missing part counts as 0.
    """
    counted_numerator = f"({numerator} or 0 * {zero_query or denominator})"
    return f"{counted_numerator} / ({denominator} > 0)"


def quantiles(histogram: str, level: str, by: str, figure: str, description: str) -> tuple[RecordingRule, ...]:
    """Rules for the 50th, 95th and 99th percentile of the last five minutes."""
    return tuple(
        RecordingRule(
            f"{level}:{figure}:{name}",
            f"histogram_quantile({value}, {rate(f'{histogram}_bucket', f'{by}, le', '5m')})",
            f"{description}: {value:.0%} of the values of the last five minutes are below, in seconds.",
        )
        for name, value in QUANTILES.items()
    )


def errors(window: str, span: str) -> RecordingRule:
    return RecordingRule(
        f"pool:errors:ratio_rate{window}",
        share(
            rate("manyeyes_requests_total", "pool", window, 'status=~"5.."'),
            rate("manyeyes_requests_total", "pool", window, COUNTED),
        ),
        f"Share of a pool's requests that failed (5xx), over {span}. 4xx are not counted.",
    )


def slow(window: str, span: str) -> RecordingRule:
    return RecordingRule(
        f"pool:slow:ratio_rate{window}",
        "1 - "
        + share(
            rate("manyeyes_requests_within_slo_total", "pool", window),
            rate("manyeyes_requests_total", "pool", window, 'status=~"[23].."'),
        ),
        f"Share of a pool's answers that took longer than its objective allows, over {span}.",
    )


def goodput(window: str, span: str) -> RecordingRule:
    return RecordingRule(
        f"pool:goodput:ratio_rate{window}",
        share(
            rate("manyeyes_requests_within_slo_total", "pool", window),
            rate("manyeyes_requests_total", "pool", window, COUNTED),
        ),
        f"Share of a pool's requests that were answered within its objective, over {span}.",
    )


ANSWERED_BY_OWN_POOL = rate("manyeyes_requests_total", "pool", "5m", 'fallback=""')
FALLBACKS = rate("manyeyes_fallbacks_total", "pool", "5m")

REQUESTS = RuleGroup(
    "requests",
    (
        RecordingRule(
            "cluster:requests:rate1m", "sum(rate(manyeyes_requests_total[1m]))", "Completed requests per second."
        ),
        RecordingRule(
            "pool:requests:rate1m",
            rate("manyeyes_requests_total", "pool", "1m"),
            "Completed requests per second, by the pool that answered or, if none answered, the requested pool.",
        ),
        RecordingRule(
            "pool_engine:requests:rate1m",
            rate("manyeyes_requests_total", "pool, engine", "1m", 'engine!=""'),
            "Completed requests per second, by the engine that answered last.",
        ),
        RecordingRule(
            "pool:requests:rate5m",
            rate("manyeyes_requests_total", "pool", "5m"),
            "The same as pool:requests:rate1m, over five minutes.",
        ),
        RecordingRule(
            "pool_engine:requests:rate5m",
            rate("manyeyes_requests_total", "pool, engine", "5m", 'engine!=""'),
            "The same as pool_engine:requests:rate1m, over five minutes.",
        ),
        errors("5m", WINDOWS["5m"]),
        slow("5m", WINDOWS["5m"]),
        goodput("5m", WINDOWS["5m"]),
        RecordingRule(
            "pool_engine:failed_attempts:ratio_rate5m",
            share(
                rate("manyeyes_attempts_total", "pool, engine", "5m", 'outcome=~"refused|lost|error|timeout"'),
                rate("manyeyes_attempts_total", "pool, engine", "5m", 'outcome!="left"'),
            ),
            "Share of the gateway's attempts that an engine did not answer, over five minutes. Users saw a retry or a failure.",
        ),
        RecordingRule(
            "pool:turned_away:ratio_rate5m",
            share(
                rate("manyeyes_requests_total", "pool", "5m", 'status="429"'),
                rate("manyeyes_requests_total", "pool", "5m"),
            ),
            "Share of a pool's requests that got 429 because every engine was full or a key reached its limit, over five minutes.",
        ),
        RecordingRule(
            "pool:fallbacks:ratio_rate5m",
            share(
                FALLBACKS,
                f"({ANSWERED_BY_OWN_POOL} + ({FALLBACKS} or 0 * {ANSWERED_BY_OWN_POOL}))",
                zero_query=ANSWERED_BY_OWN_POOL,
            ),
            "Share of the requests for a pool that another pool answered, over five minutes.",
        ),
        RecordingRule(
            "pool:retries:ratio_rate5m",
            share(
                rate("manyeyes_retries_total", "pool", "5m"),
                rate("manyeyes_requests_total", "pool", "5m", 'engine!=""'),
            ),
            "Share of a pool's requests that were retried on a second engine, over five minutes.",
        ),
        RecordingRule(
            "pool:response_cache_hits:ratio_rate5m",
            share(
                rate("manyeyes_requests_total", "pool", "5m", 'cache=~"HIT|STALE|UPDATING"'),
                rate("manyeyes_requests_total", "pool", "5m"),
            ),
            "Share of a pool's requests that the gateway answered from its response cache, over five minutes.",
        ),
        RecordingRule(
            "pool:balance:ratio",
            "max by (pool) (EACH) / clamp_min(min by (pool) (EACH), 0.001) and on (pool) pool:requests:rate5m > 0".replace(
                "EACH",
                f"pool_engine:requests:rate5m and on (pool, engine) manyeyes_engine_state{{{SERVING}}} == 1",
            ),
            "Requests of a pool's busiest engine divided by those of its least busy engine that is up, over five minutes; 1 is balanced.",
        ),
    ),
)

TIMES = RuleGroup(
    "times",
    (
        *quantiles("manyeyes_request_duration_seconds", "pool", "pool", "request_seconds", "Duration of successful requests, as users saw it"),
        *quantiles("manyeyes_request_duration_seconds", "pool_engine", "pool, engine", "request_seconds", "The same per engine"),
        *quantiles("manyeyes_first_byte_seconds", "pool", "pool", "first_byte_seconds", "Time to the first byte, as users saw it"),
        *quantiles("vllm:time_to_first_token_seconds", "pool", "pool", "first_token_seconds", "TTFT, measured by engines"),
        *quantiles("vllm:time_to_first_token_seconds", "pool_engine", "pool, engine", "first_token_seconds", "TTFT per engine"),
        *quantiles("vllm:inter_token_latency_seconds", "pool", "pool", "inter_token_seconds", "Time between two tokens (ITL), measured by engines"),
    ),
)  # fmt: skip

ENGINES = RuleGroup(
    "engines",
    (
        RecordingRule(
            "pool:engines:count", "count by (pool) (count by (pool, engine) (manyeyes_engine_state))", "Known engines."
        ),
        RecordingRule(
            "pool:engines_up:sum",
            f"sum by (pool) (manyeyes_engine_state{{{SERVING}}})",
            "Engines that receive new requests.",
        ),
        RecordingRule(
            "pool:in_flight:sum", "sum by (pool) (manyeyes_engine_in_flight)", "Requests inside a pool's engines."
        ),
        RecordingRule("pool:running:sum", "sum by (pool) (manyeyes_engine_running)", "Requests that run on GPUs."),
        RecordingRule(
            "pool:waiting:sum", "sum by (pool) (manyeyes_engine_waiting)", "Requests in the queues of a pool's engines."
        ),
        RecordingRule(
            "pool:hidden_queue:sum",
            "sum by (pool) (manyeyes_engine_hidden_queue)",
            "Requests whose images the CPU preprocesses; vLLM reports them in no queue.",
        ),
        RecordingRule(
            "pool_engine:kv_cache_use:max",
            "max by (pool, engine) (vllm:kv_cache_usage_perc)",
            "Used share of an engine's KV cache, 0 to 1.",
        ),
        RecordingRule(
            "pool:kv_cache_use:max",
            "max by (pool) (pool_engine:kv_cache_use:max)",
            "Used share of the fullest KV cache of a pool, 0 to 1.",
        ),
        RecordingRule(
            "pool_engine:preemptions:rate5m",
            rate("vllm:num_preemptions_total", "pool, engine", "5m"),
            "Requests that were removed from the KV cache and are computed again, per second.",
        ),
        RecordingRule(
            "pool:preemptions:rate5m", "sum by (pool) (pool_engine:preemptions:rate5m)", "The same for a whole pool."
        ),
        RecordingRule(
            "pool_engine:prompt_tokens:rate1m",
            rate("vllm:prompt_tokens_total", "pool, engine", "1m"),
            "Prompt tokens per second, including those of images.",
        ),
        RecordingRule(
            "pool_engine:generation_tokens:rate1m",
            rate("vllm:generation_tokens_total", "pool, engine", "1m"),
            "Generated tokens per second.",
        ),
        RecordingRule(
            "pool:prompt_tokens:rate1m",
            "sum by (pool) (pool_engine:prompt_tokens:rate1m)",
            "Prompt tokens per second of a whole pool.",
        ),
        RecordingRule(
            "pool:generation_tokens:rate1m",
            "sum by (pool) (pool_engine:generation_tokens:rate1m)",
            "Generated tokens per second of a whole pool.",
        ),
        *(
            RecordingRule(
                f"{level}:{figure}:ratio_rate5m",
                share(rate(f"vllm:{metric}_hits_total", by, "5m"), rate(f"vllm:{metric}_queries_total", by, "5m")),
                f"{description}, over five minutes.",
            )
            for level, by in (("pool", "pool"), ("pool_engine", "pool, engine"))
            for figure, metric, description in (
                ("prefix_cache_hits", "prefix_cache", "Share of prompt tokens whose keys and values were cached"),
                ("mm_cache_hits", "mm_cache", "Share of images that the engine had already preprocessed"),
            )
        ),
        RecordingRule(
            "pool:images:rate5m",
            rate("vllm:mm_cache_queries_total", "pool", "5m"),
            "Images and videos in requests, per second.",
        ),
        RecordingRule(
            "pool:scaling_missing:max",
            "clamp_min(max by (pool) (manyeyes_scaling_desired_replicas) - on (pool) pool:engines_up:sum, 0)",
            "Desired replicas that are not up.",
        ),
    ),
)

HOURS = RuleGroup(
    "hours",
    tuple(
        make(window, span)
        for window, span in WINDOWS.items()
        if window != "5m"
        for make in (errors, slow, goodput)
    ),
    slow=True,
)  # fmt: skip

GPUS = RuleGroup(
    "gpus",
    (
        RecordingRule(
            "gpu:use:ratio",
            "max by (gpu) (DCGM_FI_DEV_GPU_UTIL) / 100",
            "Share of time in which a GPU is busy, 0 to 1.",
        ),
        RecordingRule(
            "gpu:memory_used:ratio",
            "max by (gpu) (DCGM_FI_DEV_FB_USED) / (max by (gpu) (DCGM_FI_DEV_FB_USED) + max by (gpu) (DCGM_FI_DEV_FB_FREE))",
            "Used share of a GPU's memory, 0 to 1. vLLM reserves its share when it starts and holds it.",
        ),
        RecordingRule(
            "gpu:temperature_celsius:max",
            "max by (gpu) (DCGM_FI_DEV_GPU_TEMP)",
            "Temperature of a GPU, in degrees Celsius.",
        ),
        RecordingRule(
            "gpu:power_watts:max", "max by (gpu) (DCGM_FI_DEV_POWER_USAGE)", "Power that a GPU draws, in watts."
        ),
        RecordingRule("cluster:gpu_power_watts:sum", "sum(gpu:power_watts:max)", "Power that all GPUs draw, in watts."),
        RecordingRule(
            "cluster:energy_per_1000_images:watt_hours",
            "1000 / 3600 * sum(avg_over_time(gpu:power_watts:max[5m])) / (sum(pool:images:rate5m) > 0)",
            "Energy of all GPUs for 1000 images at the rate of the last five minutes, in watt-hours.",
        ),
    ),
    gpu=True,
)

GROUPS = (REQUESTS, TIMES, ENGINES, HOURS, GPUS)
