"""Every metric of the controller: name, help text and labels. `make docs` generates docs/reference/metrics.md from it.

engine_monitor.py and fleet.py update the engines' metrics, dns.py its responses, request_metrics.py the gateway's
requests. The series of a removed engine or pool are dropped.
"""

import contextlib
from datetime import datetime
from functools import lru_cache
from pathlib import Path

from cryptography import x509
from prometheus_client import Counter, Gauge, Histogram, disable_created_metrics

from manyeyes.config.engines import Engine
from manyeyes.config.placement import PlacedCluster
from manyeyes.controller.health.states import AttemptOutcome, EngineState, ProbeResult
from manyeyes.controller.health.vllm_metrics import EngineLoad

# By default each counter gets a second series with its creation time, which nothing reads.
disable_created_metrics()  # type: ignore[no-untyped-call]

# Engines

ENGINE_STATE = Gauge(
    "manyeyes_engine_state",
    "1 for the state an engine is in, 0 for the others.",
    ["engine", "pool", "flavour", "state"],
)
TRANSITIONS = Counter(
    "manyeyes_engine_transitions_total", "State changes of an engine, by its new state.", ["engine", "pool", "state"]
)
PROBES = Counter("manyeyes_probes_total", "Probes of /health, by result.", ["engine", "result"])
PROBE_SECONDS = Gauge(
    "manyeyes_probe_duration_seconds",
    "Duration of the last probe of /health, or how long its response is awaited so far.",
    ["engine", "pool"],
)
CANARIES = Counter(
    "manyeyes_canary_requests_total",
    "Canary requests (one image, one token) sent to engines, by result.",
    ["engine", "pool", "result"],
)
IN_FLIGHT = Gauge(
    "manyeyes_engine_in_flight", "Requests inside an engine, as the engine reports them.", ["engine", "pool"]
)
RUNNING = Gauge("manyeyes_engine_running", "Requests in the batch that the engine's GPU processes.", ["engine", "pool"])
WAITING = Gauge("manyeyes_engine_waiting", "Requests in the engine's queue.", ["engine", "pool"])
HIDDEN_QUEUE = Gauge(
    "manyeyes_engine_hidden_queue",
    "Requests inside an engine that neither run nor wait: their images are being prepared on its CPU.",
    ["engine", "pool"],
)
KV_CACHE = Gauge(
    "manyeyes_engine_kv_cache_usage_ratio", "Used part of the engine's KV cache, 0 to 1.", ["engine", "pool"]
)
TOKENS_PER_SECOND = Gauge(
    "manyeyes_engine_tokens_per_second",
    "Tokens generated per second between the last two probes.",
    ["engine", "pool"],
)
REMOTE_REACHABLE = Gauge(
    "manyeyes_remote_reachable", "1 when a remote pool's endpoint accepts connections, else 0.", ["pool"]
)

# Configuration

CONFIG_REFUSED = Gauge(
    "manyeyes_config_refused",
    "1 while cluster.yaml or the API keys are invalid; the last valid configuration stays active.",
)
CONFIG_REFUSALS = Counter("manyeyes_config_refusals_total", "Rejected configurations, by reason.", ["reason"])
CONFIG_APPLIED = Gauge(
    "manyeyes_config_applied_timestamp_seconds", "When a configuration was last applied, as Unix time."
)
CONFIG_NEEDS = Gauge(
    "manyeyes_config_pending_restarts",
    "Parts of the active configuration that need an operator's action, such as a restart.",
)
GATEWAY_BEHIND = Gauge("manyeyes_gateway_config_outdated", "1 while the gateway does not run its newest configuration.")
GATEWAY_REFUSALS = Counter(
    "manyeyes_gateway_config_refusals_total",
    "Generations of nginx files that could not be made, or that nginx refused or did not load in time.",
)

TASK_FAILURES = Counter(
    "manyeyes_controller_task_failures_total",
    "Unexpected exceptions in the controller's tasks. The task continues; the log event `task_failed` has the details.",
    ["task"],
)

CERTIFICATE_EXPIRES = Gauge(
    "manyeyes_certificate_expires_timestamp_seconds", "When the gateway's certificate expires, as Unix time.", ["file"]
)

# Containers, as Docker reports them through its socket filter

CONTAINER_CPU = Counter("manyeyes_container_cpu_seconds_total", "CPU time used by a container.", ["service"])
CONTAINER_MEMORY = Gauge(
    "manyeyes_container_memory_bytes", "Memory used by a container, without the page cache of files.", ["service"]
)
CONTAINER_MEMORY_LIMIT = Gauge(
    "manyeyes_container_memory_limit_bytes", "Memory at which the container is killed.", ["service"]
)
CONTAINER_RESTARTS = Gauge(
    "manyeyes_container_restarts", "How often Docker restarted an engine's container after it exited.", ["service"]
)

# Membership

DNS_ANSWERS = Counter(
    "manyeyes_dns_answers_total", "DNS responses, by pool or engine and response code.", ["name", "code"]
)

# Requests, as the gateway's log reports them

BUCKETS_S = (
    *(0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.4, 0.6),
    *(1, 1.5, 2.5, 4, 6, 10, 15, 25, 40, 60, 120, 300),
)
"""Each is about 1.6 times the previous bucket over the range that users wait for: from the first token of a text
answer to a video on a busy engine."""
REQUESTS = Counter(
    "manyeyes_requests_total",
    "Requests by the pool that answered (or was requested), the engine, the status sent to the client, "
    "whether a fallback pool answered (1), and the cache status.",
    ["pool", "engine", "status", "fallback", "cache"],
)
SECONDS = Histogram(
    "manyeyes_request_duration_seconds",
    "Duration of successful requests, from the first byte read from the client to the last byte sent. "
    "`engine` is empty for answers from the cache.",
    ["pool", "engine"],
    buckets=BUCKETS_S,
)
FIRST_BYTE_SECONDS = Histogram(
    "manyeyes_first_byte_seconds",
    "Time to first byte of successful requests, measured from the first attempt on an engine; it includes retries.",
    ["pool", "engine"],
    buckets=BUCKETS_S,
)
WITHIN_SLO = Counter(
    "manyeyes_requests_within_slo_total",
    "Successful requests within the pool's latency objective. For streamed answers the first byte counts too.",
    ["pool", "engine"],
)
ATTEMPTS = Counter(
    "manyeyes_attempts_total",
    "Attempts on engines, by outcome: " + ", ".join(outcome.value for outcome in AttemptOutcome) + ".",
    ["pool", "engine", "outcome"],
)
RETRIES = Counter("manyeyes_retries_total", "Requests that were retried on another engine of the pool.", ["pool"])
FALLBACKS = Counter(
    "manyeyes_fallbacks_total", "Requests for `pool` that were answered by its fallback pool, `to`.", ["pool", "to"]
)
REFUSED = Counter(
    "manyeyes_requests_refused_total",
    "Requests that the gateway refused without sending them to an engine, by status.",
    ["status"],
)
AT_FAULT = Counter(
    "manyeyes_requests_at_fault_total", "Requests refused with 422: engines failed on them.", ["pool", "code"]
)
BYTES_IN = Counter("manyeyes_request_bytes_total", "Bytes of requests, with headers.", ["pool"])
BYTES_OUT = Counter("manyeyes_response_bytes_total", "Bytes of responses, with headers.", ["pool"])
KEY_REQUESTS = Counter(
    "manyeyes_key_requests_total", "Requests by the name of the client's API key.", ["key", "status_class"]
)
UNREADABLE = Counter("manyeyes_request_log_unreadable_total", "Log datagrams without a valid request or sender.")
DROPPED = Counter(
    "manyeyes_request_log_dropped_total", "Log datagrams that the kernel dropped because the receive buffer was full."
)
SPANS = Counter("manyeyes_spans_total", "Spans of the gateway, by outcome: sent, dropped.", ["outcome"])

# Service level objectives (pools[].slo), for rules and alerts

SLO_SUCCESS = Gauge("manyeyes_slo_availability_ratio", "Share of requests that must succeed, 0 to 1.", ["pool"])
SLO_WITHIN = Gauge(
    "manyeyes_slo_latency_objective_ratio",
    "Share of successful requests that must meet both latency limits, 0 to 1.",
    ["pool"],
)
SLO_TOTAL_S = Gauge("manyeyes_slo_latency_seconds", "Longest allowed time for a complete answer.", ["pool"])
SLO_FIRST_S = Gauge(
    "manyeyes_slo_ttft_seconds", "Longest allowed time to the first byte of a streamed answer.", ["pool"]
)

# Autoscaling

SCALING_DESIRED = Gauge("manyeyes_scaling_desired_replicas", "Desired number of engines of the pool.", ["pool"])
SCALING_STARTED = Gauge(
    "manyeyes_scaling_started_replicas",
    "Engines of the pool that are neither stopped nor asleep, whether they serve or not.",
    ["pool"],
)
SCALING_FIXED = Gauge("manyeyes_scaling_pinned", "1 while the count is set by hand.", ["pool"])
SCALING_REASON = Gauge(
    "manyeyes_scaling_reason", "1 for the reason of the last decision, 0 for the other reasons.", ["pool", "reason"]
)
SCALING_DECIDED = Gauge(
    "manyeyes_scaling_last_decision_timestamp_seconds", "When the last decision was made, as Unix time.", ["pool"]
)
SCALING_CHANGES = Counter(
    "manyeyes_scaling_changes_total", "Changes of the desired number of engines.", ["pool", "direction"]
)
SCALING_FAILURES = Counter(
    "manyeyes_scaling_failures_total", "Engines that could not be started, stopped, woken or put to sleep.", ["pool"]
)
HUNG_RESTARTS = Counter(
    "manyeyes_hung_restarts_total", "Restarts of engines that ran but did not respond.", ["engine", "pool"]
)
SCALING_LOAD = Gauge(
    "manyeyes_scaling_load",
    "Input of the decisions: in_flight (requests), serving (engines), queue_time_s, p95_s (seconds), gpu (0 to 1). "
    "There is no sample while a value is unknown.",
    ["pool", "kind"],
)

# Annotations

ANNOTATION = Gauge(
    "manyeyes_annotation", "1 while an annotation (docs/api.md) is active, such as a load test.", ["text"]
)

AnyMetric = Counter | Gauge | Histogram
ALL: tuple[AnyMetric, ...] = tuple(
    metric for metric in list(globals().values()) if isinstance(metric, Counter | Gauge | Histogram)
)
"""In the order of this file."""
OF_LOAD = (IN_FLIGHT, RUNNING, WAITING, HIDDEN_QUEUE, KV_CACHE, TOKENS_PER_SECOND)


@lru_cache(maxsize=8192)
def counter(metric: Counter, *labels: str) -> Counter:
    """Returns one series. The library's `labels()` takes 1.3 µs and this takes 0.2 µs, several times per request."""
    return metric.labels(*labels)


@lru_cache(maxsize=8192)
def gauge(metric: Gauge, *labels: str) -> Gauge:
    return metric.labels(*labels)


@lru_cache(maxsize=8192)
def histogram(metric: Histogram, *labels: str) -> Histogram:
    return metric.labels(*labels)


def record_state(engine: Engine, current: EngineState) -> None:
    """Sets the gauge of the engine's state to 1 and those of all other states to 0."""
    for state in EngineState:
        if state is not EngineState.REMOTE:
            ENGINE_STATE.labels(engine.name, engine.pool, engine.flavour, state.value).set(state is current)
    # The counters start at 0, so that an alert sees the first increment.
    TRANSITIONS.labels(engine.name, engine.pool, EngineState.DOWN.value)
    HUNG_RESTARTS.labels(engine.name, engine.pool)


def record_transition(engine: Engine, current: EngineState) -> None:
    """Sets the state gauge and counts the transition."""
    record_state(engine, current)
    TRANSITIONS.labels(engine.name, engine.pool, current.value).inc()


def count_probe(engine: Engine, seen: ProbeResult, waited_s: float) -> None:
    counter(PROBES, engine.name, seen.value).inc()
    gauge(PROBE_SECONDS, engine.name, engine.pool).set(round(waited_s, 6))


def record_load(engine: Engine, load: EngineLoad) -> None:
    values = (load.in_flight, load.running, load.waiting, load.hidden_queue, load.kv_cache_share, load.tokens_per_s)
    for metric, value in zip(OF_LOAD, values, strict=True):
        gauge(metric, engine.name, engine.pool).set(value or 0)


def record_certificate(cluster: PlacedCluster, secrets: Path) -> None:
    """Records when the gateway's certificate expires. No series without TLS, or while the file cannot be read."""
    CERTIFICATE_EXPIRES.clear()
    if cluster.gateway.tls:
        name = cluster.gateway.tls.certificate
        with contextlib.suppress(OSError, ValueError, OverflowError):
            expiry = certificate_expiry((secrets / name).read_bytes())
            CERTIFICATE_EXPIRES.labels(name).set(expiry.timestamp())


def certificate_expiry(pem: bytes) -> datetime:
    """The expiry time of the first certificate in `pem`. Raises ValueError."""
    return x509.load_pem_x509_certificate(pem).not_valid_after_utc


def remove_load(engine: Engine) -> None:
    _drop(OF_LOAD, {"engine": engine.name})


def remove_engine(engine: Engine) -> None:
    """Drops the series of a removed engine."""
    _drop(ALL, {"engine": engine.name})
    _drop((DNS_ANSWERS,), {"name": engine.name})


def remove_pool(pool: str) -> None:
    """Drops the series of a removed pool."""
    _drop(ALL, {"pool": pool})
    _drop((FALLBACKS,), {"to": pool})
    _drop((DNS_ANSWERS,), {"name": pool})


def remove_remote(pool: str) -> None:
    """Drops the series of a removed remote endpoint."""
    _drop((REMOTE_REACHABLE,), {"pool": pool})


def _drop(metrics: tuple[AnyMetric, ...], labels: dict[str, str]) -> None:
    for metric in metrics:
        if labels.keys() <= set(metric._labelnames):
            metric.remove_by_labels(labels)
    # Cached series would count into objects that are no longer exported.
    for cached in (counter, gauge, histogram):
        cached.cache_clear()


HEAD = """# Metrics of the controller

Generated from `manyeyes/controller/metrics.py` by `make docs`. The controller exports these metrics at `/metrics` on
port 8081 inside the cluster. Prometheus scrapes them as job `controller`, and vLLM's own metrics (`vllm:...`) from each
engine. The series of a removed engine or pool are dropped. Series of configured engines and pools start at 0, so that a
rate is 0 and not missing.

| name | type | labels | meaning |
|---|---|---|---|
"""
TAIL = """
States of an engine: {states}. Engines that are `up` or `suspect` get requests.
"""


def markdown() -> str:
    rows = []
    for metric in ALL:
        described = next(iter(metric.describe()))
        kind = "counter" if isinstance(metric, Counter) else "gauge" if isinstance(metric, Gauge) else "histogram"
        name = described.name + ("_total" if kind == "counter" else "")
        labels = ", ".join(f"`{label}`" for label in metric._labelnames)
        rows.append(f"| `{name}` | {kind} | {labels} | {described.documentation} |")
    states = ", ".join(f"`{state.value}`" for state in EngineState if state is not EngineState.REMOTE)
    return HEAD + "\n".join(rows) + "\n" + TAIL.format(states=states)


if __name__ == "__main__":
    print(markdown(), end="")
