"""Every metric of the controller: name, help text and labels. docs/metrics.md is made from this file by `make docs`.

What counts them: engine_monitor.py and fleet.py the engines, dns.py its answers, request_metrics.py the gateway's requests. The series
of an engine or pool that is gone are dropped.
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

# A second series for each, with the time of its first value, that nothing reads.
disable_created_metrics()  # type: ignore[no-untyped-call]

# Engines

ENGINE_STATE = Gauge(
    "manyeyes_engine_state",
    "1 for the state an engine is in, 0 for the others.",
    ["engine", "pool", "flavour", "state"],
)
TRANSITIONS = Counter("manyeyes_engine_transitions_total", "Changes of state.", ["engine", "pool", "state"])
PROBES = Counter("manyeyes_probes_total", "Looks at /health by result.", ["engine", "result"])
PROBE_SECONDS = Gauge(
    "manyeyes_probe_duration_seconds", "How long the last answer to /health took, or is awaited.", ["engine", "pool"]
)
CANARIES = Counter(
    "manyeyes_canary_requests_total",
    "Pictures that engines were asked about, by what came of it.",
    ["engine", "pool", "result"],
)
IN_FLIGHT = Gauge("manyeyes_engine_in_flight", "Requests inside an engine, as it says.", ["engine", "pool"])
RUNNING = Gauge("manyeyes_engine_running", "Requests in the batch its GPU works on.", ["engine", "pool"])
WAITING = Gauge("manyeyes_engine_waiting", "Requests in its queue.", ["engine", "pool"])
HIDDEN_QUEUE = Gauge(
    "manyeyes_engine_hidden_queue",
    "Requests inside an engine that neither run nor wait: their pictures are being prepared on its CPU.",
    ["engine", "pool"],
)
KV_CACHE = Gauge("manyeyes_engine_kv_cache_usage_ratio", "Used part of its KV cache, 0 to 1.", ["engine", "pool"])
TOKENS_PER_SECOND = Gauge(
    "manyeyes_engine_tokens_per_second", "Tokens it answered per second between the last two looks.", ["engine", "pool"]
)
REMOTE_REACHABLE = Gauge(
    "manyeyes_remote_reachable", "1 when something listens where a pool is served elsewhere, else 0.", ["pool"]
)

# Configuration

CONFIG_REFUSED = Gauge(
    "manyeyes_config_refused", "1 while cluster.yaml or the API keys cannot be used, so that older ones are in force."
)
CONFIG_REFUSALS = Counter(
    "manyeyes_config_refusals_total", "Configurations that could not be used, by what was wrong.", ["reason"]
)
CONFIG_APPLIED = Gauge(
    "manyeyes_config_applied_timestamp_seconds", "When a configuration came into force last, as Unix time."
)
CONFIG_NEEDS = Gauge(
    "manyeyes_config_pending_restarts", "Things that the configuration in force needs a person for, such as a restart."
)
GATEWAY_BEHIND = Gauge(
    "manyeyes_gateway_config_outdated", "1 while the gateway does not run on the files that it should."
)
GATEWAY_REFUSALS = Counter(
    "manyeyes_gateway_config_refusals_total", "Sets of files that the gateway refused or did not take over in time."
)

TASK_FAILURES = Counter(
    "manyeyes_controller_task_failures_total",
    "Unexpected exceptions in the controller's long tasks. The task went on; the log's event `task_failed` says more.",
    ["task"],
)

CERTIFICATE_EXPIRES = Gauge(
    "manyeyes_certificate_expires_timestamp_seconds", "When the gateway's certificate ends, as Unix time.", ["file"]
)

# Containers, as Docker tells of them through its filter

CONTAINER_CPU = Counter("manyeyes_container_cpu_seconds_total", "CPU time that a container took.", ["service"])
CONTAINER_MEMORY = Gauge(
    "manyeyes_container_memory_bytes", "Memory of a container, without what is cache of files.", ["service"]
)
CONTAINER_MEMORY_LIMIT = Gauge(
    "manyeyes_container_memory_limit_bytes", "Memory at which the container is killed.", ["service"]
)
CONTAINER_RESTARTS = Gauge(
    "manyeyes_container_restarts",
    "Times that Docker started an engine's container again because it ended.",
    ["service"],
)

# Membership

DNS_ANSWERS = Counter("manyeyes_dns_answers_total", "DNS answers by pool or engine, and result code.", ["name", "code"])

# Requests, as the gateway's log tells of them

BUCKETS_S = (
    *(0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.4, 0.6),
    *(1, 1.5, 2.5, 4, 6, 10, 15, 25, 40, 60, 120, 300),
)
"""Each about 1.6 times the one before, where people wait: from a text's first token to a video on a busy engine."""
REQUESTS = Counter(
    "manyeyes_requests_total",
    "Requests by the pool that answered (or was asked for), the engine, what the client got, whether another pool stood in (1), and the cache.",
    ["pool", "engine", "status", "fallback", "cache"],
)
SECONDS = Histogram(
    "manyeyes_request_duration_seconds",
    "Successful requests, from the first byte read from the client to the last byte sent; engine is empty for the cache.",
    ["pool", "engine"],
    buckets=BUCKETS_S,
)
FIRST_BYTE_SECONDS = Histogram(
    "manyeyes_first_byte_seconds",
    "Successful requests, from being sent to the first engine until the first byte of the answer, retries included.",
    ["pool", "engine"],
    buckets=BUCKETS_S,
)
WITHIN_SLO = Counter(
    "manyeyes_requests_within_slo_total",
    "Successful requests that took no longer than the pool's objective allows; the first byte counts where the answer was streamed.",
    ["pool", "engine"],
)
ATTEMPTS = Counter(
    "manyeyes_attempts_total",
    "Engines asked, by what came of it: " + ", ".join(outcome.value for outcome in AttemptOutcome) + ".",
    ["pool", "engine", "outcome"],
)
RETRIES = Counter("manyeyes_retries_total", "Requests for which a second engine of the pool was asked.", ["pool"])
FALLBACKS = Counter("manyeyes_fallbacks_total", "Requests for one pool that another one answered.", ["pool", "to"])
REFUSED = Counter(
    "manyeyes_requests_refused_total",
    "Requests that the gateway refused without asking an engine, by status.",
    ["status"],
)
BYTES_IN = Counter("manyeyes_request_bytes_total", "Bytes of requests, with their headers.", ["pool"])
BYTES_OUT = Counter("manyeyes_response_bytes_total", "Bytes of answers, with their headers.", ["pool"])
KEY_REQUESTS = Counter(
    "manyeyes_key_requests_total", "Requests by the name of the client's API key.", ["key", "status_class"]
)
UNREADABLE = Counter("manyeyes_request_log_unreadable_total", "Log datagrams that tell of no request.")
DROPPED = Counter(
    "manyeyes_request_log_dropped_total", "Log datagrams that the system threw away because they came too fast."
)

SPANS = Counter("manyeyes_spans_total", "Spans of the gateway, by what came of them: sent, dropped.", ["outcome"])

# What people may expect: pools[].slo, for rules and alerts

SLO_SUCCESS = Gauge("manyeyes_slo_availability_ratio", "Share of requests that have to be answered, 0 to 1.", ["pool"])
SLO_WITHIN = Gauge(
    "manyeyes_slo_latency_objective_ratio", "Share of answered requests that have to keep both times, 0 to 1.", ["pool"]
)
SLO_TOTAL_S = Gauge("manyeyes_slo_latency_seconds", "Longest wait for a whole answer.", ["pool"])
SLO_FIRST_S = Gauge("manyeyes_slo_ttft_seconds", "Longest wait for the first byte of a streamed answer.", ["pool"])

# Scaling

SCALING_WANTED = Gauge("manyeyes_scaling_desired_replicas", "Engines that the pool should have.", ["pool"])
SCALING_STARTED = Gauge(
    "manyeyes_scaling_started_replicas",
    "Engines of the pool that are not at rest, whether they serve or not.",
    ["pool"],
)
SCALING_FIXED = Gauge("manyeyes_scaling_pinned", "1 while the count is set by hand.", ["pool"])
SCALING_REASON = Gauge(
    "manyeyes_scaling_reason", "1 for what the last decision rests on, 0 for the rest.", ["pool", "reason"]
)
SCALING_DECIDED = Gauge(
    "manyeyes_scaling_last_decision_timestamp_seconds", "When the last decision was taken.", ["pool"]
)
SCALING_CHANGES = Counter("manyeyes_scaling_changes_total", "Changes of the wanted count.", ["pool", "direction"])
SCALING_FAILURES = Counter(
    "manyeyes_scaling_failures_total", "Engines that could not be started, stopped, woken or put to sleep.", ["pool"]
)
HUNG_RESTARTS = Counter(
    "manyeyes_hung_restarts_total", "Engines restarted because they ran and did not answer.", ["engine", "pool"]
)
SCALING_LOAD = Gauge(
    "manyeyes_scaling_load",
    "What decisions rest on: in_flight (requests), serving (engines), queue_time_s, p95_s (seconds), gpu (0 to 1). No sample: not known.",
    ["pool", "kind"],
)

# Times that somebody marked

MARK = Gauge("manyeyes_annotation", "1 while a mark lasts (docs/api.md), such as a load test.", ["text"])

OneMetric = Counter | Gauge | Histogram
ALL: tuple[OneMetric, ...] = tuple(
    metric for metric in list(globals().values()) if isinstance(metric, Counter | Gauge | Histogram)
)
"""In this file's order."""
OF_LOAD = (IN_FLIGHT, RUNNING, WAITING, HIDDEN_QUEUE, KV_CACHE, TOKENS_PER_SECOND)


@lru_cache(maxsize=8192)
def counter(metric: Counter, *labels: str) -> Counter:
    """One series; the library's own way to it costs 1.3 µs and this 0.2, several times per request."""
    return metric.labels(*labels)


@lru_cache(maxsize=8192)
def gauge(metric: Gauge, *labels: str) -> Gauge:
    return metric.labels(*labels)


@lru_cache(maxsize=8192)
def histogram(metric: Histogram, *labels: str) -> Histogram:
    return metric.labels(*labels)


def record_state(engine: Engine, current: EngineState) -> None:
    """Sets the engine's state gauge, all other states to 0."""
    for state in EngineState:
        if state is not EngineState.REMOTE:
            ENGINE_STATE.labels(engine.name, engine.pool, engine.flavour, state.value).set(state is current)
    # From 0 on, so that the first one is a change that an alert sees.
    TRANSITIONS.labels(engine.name, engine.pool, EngineState.DOWN.value)
    HUNG_RESTARTS.labels(engine.name, engine.pool)


def record_transition(engine: Engine, current: EngineState) -> None:
    """The same for a change, which counts."""
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
    """When the gateway's certificate expires, as of now; no series without TLS, or while the file cannot be read."""
    CERTIFICATE_EXPIRES.clear()
    if cluster.gateway.tls:
        name = cluster.gateway.tls.certificate
        with contextlib.suppress(OSError, ValueError, OverflowError):
            expiry = certificate_expiry((secrets / name).read_bytes())
            CERTIFICATE_EXPIRES.labels(name).set(expiry.timestamp())


def certificate_expiry(pem: bytes) -> datetime:
    """Until when the first certificate in `pem` is valid. Raises ValueError."""
    return x509.load_pem_x509_certificate(pem).not_valid_after_utc


def remove_load(engine: Engine) -> None:
    _drop(OF_LOAD, {"engine": engine.name})


def remove_engine(engine: Engine) -> None:
    """Drops the series of an engine that is no longer there."""
    _drop(ALL, {"engine": engine.name})
    _drop((DNS_ANSWERS,), {"name": engine.name})


def remove_pool(pool: str) -> None:
    """Drops the series of a pool that is no longer there."""
    _drop(ALL, {"pool": pool})
    _drop((FALLBACKS,), {"to": pool})
    _drop((DNS_ANSWERS,), {"name": pool})


def remove_remote(pool: str) -> None:
    """Drops what is known of an endpoint elsewhere."""
    _drop((REMOTE_REACHABLE,), {"pool": pool})


def _drop(metrics: tuple[OneMetric, ...], labels: dict[str, str]) -> None:
    for metric in metrics:
        if labels.keys() <= set(metric._labelnames):
            metric.remove_by_labels(labels)
    # What was kept would be counted into series that nobody sees.
    for kept in (counter, gauge, histogram):
        kept.cache_clear()


HEAD = """# Metrics of the controller

Made from `manyeyes/controller/metrics.py` by `make docs`. The controller tells them at `/metrics` on port 8081 inside the cluster; Prometheus
fetches them as job `controller`, and vLLM's own (`vllm:...`) from each engine. The series of an engine or a pool that is gone
are dropped. What is configured starts at 0, so that a rate is 0 and not missing.

| name | type | labels | what it says |
|---|---|---|---|
"""
TAIL = """
States of an engine: {states}. `up` and `suspect` get requests.
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
