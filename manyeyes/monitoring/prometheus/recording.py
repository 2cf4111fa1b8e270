"""The recording rules, by level: pool, pool_engine, gpu, cluster.

`manyeyes_requests_total` and its like are what users saw (the gateway's log); `vllm:...` is what engines say. A share has no
sample while there is nothing to take a share of, so that an idle pool is neither good nor bad.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class RecordingRule:
    """A figure that Prometheus works out ahead of time."""

    name: str
    """level:metric:operations, as Prometheus advises: https://prometheus.io/docs/practices/rules/"""
    expr: str
    """PromQL, with the ranges that it has in production."""
    help: str
    """What it says, in a sentence, and its unit."""


@dataclass(frozen=True)
class AlertRule:
    """Something that a person has to do something about."""

    name: str
    expr: str
    for_: str
    """How long it must hold: 2m."""
    severity: Literal["page", "ticket"]
    """page: somebody is woken. ticket: it can wait for the morning."""
    summary: str
    """One sentence, with the pool or the engine in it."""
    keep: str = "0s"
    """How long it goes on after it last held, so that it does not flutter."""


@dataclass(frozen=True)
class RuleGroup:
    """Rules that are worked out together, one after the other."""

    name: str
    rules: tuple[RecordingRule | AlertRule, ...]
    slow: bool = False
    """Worked out every 30 s and not at every scrape: it looks at hours."""
    gpu: bool = False
    """Only where NVIDIA's exporter runs."""


WINDOWS = {"5m": "five minutes", "30m": "half an hour", "1h": "an hour", "6h": "six hours"}
"""Those that burn rates need (manyeyes/monitoring/prometheus/alerts.py)."""
QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
COUNTED = 'status=~"[235].."'
"""Requests that a promise of success is about: a 4xx is the client's own doing, or a limit's."""
SERVING = 'state=~"up|suspect"'


def rate(counter: str, by: str, window: str, where: str = "") -> str:
    """What is counted per second. Requests that name no pool, such as a list of models, count for none."""
    matchers = ", ".join(filter(None, ('pool!=""' if counter == "manyeyes_requests_total" else "", where)))
    selector = f"{counter}{{{matchers}}}" if matchers else counter
    return f"sum by ({by}) (rate({selector}[{window}]))"


def share(part: str, whole: str, zero: str = "") -> str:
    """`part` of `whole`; nothing where the whole is 0. `zero`: has the labels of a part that is missing, which counts as 0."""
    counted = f"({part} or 0 * {zero or whole})"
    return f"{counted} / ({whole} > 0)"


def quantiles(histogram: str, level: str, by: str, figure: str, what: str) -> tuple[RecordingRule, ...]:
    """Half, 95 % and 99 % of the last five minutes are below."""
    return tuple(
        RecordingRule(
            f"{level}:{figure}:{name}",
            f"histogram_quantile({value}, {rate(f'{histogram}_bucket', f'{by}, le', '5m')})",
            f"{what}: {value:.0%} of the last five minutes are below, in seconds.",
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
        f"Share of a pool's requests that failed (5xx), over {span}. A 4xx counts neither way.",
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
        f"Share of a pool's requests that were answered, and within its objective, over {span}.",
    )


ASKED_AND_ANSWERED = rate("manyeyes_requests_total", "pool", "5m", 'fallback=""')
FALLEN_BACK = rate("manyeyes_fallbacks_total", "pool", "5m")

REQUESTS = RuleGroup(
    "requests",
    (
        RecordingRule(
            "cluster:requests:rate1m", "sum(rate(manyeyes_requests_total[1m]))", "Requests that ended, per second."
        ),
        RecordingRule(
            "pool:requests:rate1m",
            rate("manyeyes_requests_total", "pool", "1m"),
            "Requests that ended, per second, by the pool that answered or, where none did, the pool asked for.",
        ),
        RecordingRule(
            "pool_engine:requests:rate1m",
            rate("manyeyes_requests_total", "pool, engine", "1m", 'engine!=""'),
            "Requests that ended, per second, by the engine that answered last.",
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
            "Share of the times that the gateway asked an engine in vain, over five minutes. Users saw a retry or a failure.",
        ),
        RecordingRule(
            "pool:turned_away:ratio_rate5m",
            share(
                rate("manyeyes_requests_total", "pool", "5m", 'status="429"'),
                rate("manyeyes_requests_total", "pool", "5m"),
            ),
            "Share of a pool's requests that got 429, because every engine was full or a key's limit was reached, over five minutes.",
        ),
        RecordingRule(
            "pool:fallbacks:ratio_rate5m",
            share(
                FALLEN_BACK,
                f"({ASKED_AND_ANSWERED} + ({FALLEN_BACK} or 0 * {ASKED_AND_ANSWERED}))",
                zero=ASKED_AND_ANSWERED,
            ),
            "Share of the requests for a pool that another one answered, over five minutes.",
        ),
        RecordingRule(
            "pool:retries:ratio_rate5m",
            share(
                rate("manyeyes_retries_total", "pool", "5m"),
                rate("manyeyes_requests_total", "pool", "5m", 'engine!=""'),
            ),
            "Share of a pool's requests for which a second engine was asked, over five minutes.",
        ),
        RecordingRule(
            "pool:response_cache_hits:ratio_rate5m",
            share(
                rate("manyeyes_requests_total", "pool", "5m", 'cache=~"HIT|STALE|UPDATING"'),
                rate("manyeyes_requests_total", "pool", "5m"),
            ),
            "Share of a pool's requests that the gateway answered from its cache of answers, over five minutes.",
        ),
        RecordingRule(
            "pool:balance:ratio",
            "max by (pool) (EACH) / clamp_min(min by (pool) (EACH), 0.001) and on (pool) pool:requests:rate5m > 0".replace(
                "EACH",
                f"pool_engine:requests:rate5m and on (pool, engine) manyeyes_engine_state{{{SERVING}}} == 1",
            ),
            "Requests of a pool's busiest engine over those of its least busy one that is up, over five minutes; 1 is even.",
        ),
    ),
)

TIMES = RuleGroup(
    "times",
    (
        *quantiles("manyeyes_request_duration_seconds", "pool", "pool", "request_seconds", "Successful requests, whole, as users saw them"),
        *quantiles("manyeyes_request_duration_seconds", "pool_engine", "pool, engine", "request_seconds", "The same per engine"),
        *quantiles("manyeyes_first_byte_seconds", "pool", "pool", "first_byte_seconds", "Until the first byte, as users saw it"),
        *quantiles("vllm:time_to_first_token_seconds", "pool", "pool", "first_token_seconds", "TTFT, as engines say"),
        *quantiles("vllm:time_to_first_token_seconds", "pool_engine", "pool, engine", "first_token_seconds", "TTFT per engine"),
        *quantiles("vllm:inter_token_latency_seconds", "pool", "pool", "inter_token_seconds", "Between two tokens, as engines say"),
    ),
)  # fmt: skip

ENGINES = RuleGroup(
    "engines",
    (
        RecordingRule(
            "pool:engines:count", "count by (pool) (count by (pool, engine) (manyeyes_engine_state))", "Engines known."
        ),
        RecordingRule(
            "pool:engines_up:sum",
            f"sum by (pool) (manyeyes_engine_state{{{SERVING}}})",
            "Engines that get new requests.",
        ),
        RecordingRule(
            "pool:in_flight:sum", "sum by (pool) (manyeyes_engine_in_flight)", "Requests inside a pool's engines."
        ),
        RecordingRule("pool:running:sum", "sum by (pool) (manyeyes_engine_running)", "Requests that GPUs work on."),
        RecordingRule(
            "pool:waiting:sum", "sum by (pool) (manyeyes_engine_waiting)", "Requests in the queues of a pool's engines."
        ),
        RecordingRule(
            "pool:hidden_queue:sum",
            "sum by (pool) (manyeyes_engine_hidden_queue)",
            "Requests whose pictures are being prepared on CPUs; they are in no queue that vLLM tells of.",
        ),
        RecordingRule(
            "pool_engine:kv_cache_use:max",
            "max by (pool, engine) (vllm:kv_cache_usage_perc)",
            "Used part of an engine's KV cache, 0 to 1.",
        ),
        RecordingRule(
            "pool:kv_cache_use:max",
            "max by (pool) (pool_engine:kv_cache_use:max)",
            "Used part of the fullest KV cache of a pool, 0 to 1.",
        ),
        RecordingRule(
            "pool_engine:preemptions:rate5m",
            rate("vllm:num_preemptions_total", "pool, engine", "5m"),
            "Requests thrown out of the KV cache and begun anew, per second.",
        ),
        RecordingRule(
            "pool:preemptions:rate5m", "sum by (pool) (pool_engine:preemptions:rate5m)", "The same for a whole pool."
        ),
        RecordingRule(
            "pool_engine:prompt_tokens:rate1m",
            rate("vllm:prompt_tokens_total", "pool, engine", "1m"),
            "Prompt tokens read per second, pictures included.",
        ),
        RecordingRule(
            "pool_engine:generation_tokens:rate1m",
            rate("vllm:generation_tokens_total", "pool, engine", "1m"),
            "Tokens written per second.",
        ),
        RecordingRule(
            "pool:prompt_tokens:rate1m",
            "sum by (pool) (pool_engine:prompt_tokens:rate1m)",
            "Prompt tokens read per second by a whole pool.",
        ),
        RecordingRule(
            "pool:generation_tokens:rate1m",
            "sum by (pool) (pool_engine:generation_tokens:rate1m)",
            "Tokens written per second by a whole pool.",
        ),
        *(
            RecordingRule(
                f"{level}:{figure}:ratio_rate5m",
                share(rate(f"vllm:{metric}_hits_total", by, "5m"), rate(f"vllm:{metric}_queries_total", by, "5m")),
                f"{what}, over five minutes.",
            )
            for level, by in (("pool", "pool"), ("pool_engine", "pool, engine"))
            for figure, metric, what in (
                ("prefix_cache_hits", "prefix_cache", "Share of prompt tokens whose keys and values were still there"),
                ("mm_cache_hits", "mm_cache", "Share of pictures that had been prepared before"),
            )
        ),
        RecordingRule(
            "pool:images:rate5m",
            rate("vllm:mm_cache_queries_total", "pool", "5m"),
            "Pictures and videos asked about per second.",
        ),
        RecordingRule(
            "pool:scaling_missing:max",
            "clamp_min(max by (pool) (manyeyes_scaling_desired_replicas) - on (pool) pool:engines_up:sum, 0)",
            "Engines that scaling wants and that do not serve (yet).",
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
            "gpu:use:ratio", "max by (gpu) (DCGM_FI_DEV_GPU_UTIL) / 100", "Busy part of a GPU's time, 0 to 1."
        ),
        RecordingRule(
            "gpu:memory_used:ratio",
            "max by (gpu) (DCGM_FI_DEV_FB_USED) / (max by (gpu) (DCGM_FI_DEV_FB_USED) + max by (gpu) (DCGM_FI_DEV_FB_FREE))",
            "Used part of a GPU's memory, 0 to 1. vLLM takes its share when it starts and keeps it.",
        ),
        RecordingRule("gpu:temperature_celsius:max", "max by (gpu) (DCGM_FI_DEV_GPU_TEMP)", "Temperature of a GPU."),
        RecordingRule(
            "gpu:power_watts:max", "max by (gpu) (DCGM_FI_DEV_POWER_USAGE)", "Power that a GPU draws, in watts."
        ),
        RecordingRule("cluster:gpu_power_watts:sum", "sum(gpu:power_watts:max)", "Power that all GPUs draw, in watts."),
        RecordingRule(
            "cluster:energy_per_1000_images:watt_hours",
            "1000 / 3600 * sum(avg_over_time(gpu:power_watts:max[5m])) / (sum(pool:images:rate5m) > 0)",
            "Energy of all GPUs for 1000 pictures at the pace of the last five minutes, in watt-hours.",
        ),
    ),
    gpu=True,
)

GROUPS = (REQUESTS, TIMES, ENGINES, HOURS, GPUS)
