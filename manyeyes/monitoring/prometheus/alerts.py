"""The alerts, symptoms first. Each has a runbook of its name in docs/runbooks/ and test cases in
tests/prometheus/cases/.

A burn rate is how many times faster errors occur than the objective allows. Each burn alert uses two windows, so that
it fires when it matters and resolves when the problem is over (Google, The Site Reliability Workbook, chapter 5:
https://sre.google/workbook/alerting-on-slos/). A share of few requests is not significant, so these alerts also require
a minimum number of failed requests.
"""

from manyeyes.monitoring.prometheus.recording import SERVING, AlertRule, RuleGroup

FAST, SLOW = 14.4, 6
"""Burn rates: they consume 2 % of a month's error budget in an hour, and 5 % in six hours."""
MIN_FAILURES = 10
"""Minimum number of failed or slow requests."""

FAILED = 'manyeyes_requests_total{pool!="", status=~"5.."}'
ANSWERED = 'manyeyes_requests_total{pool!="", status=~"[23].."}'
WITHIN_SLO = "manyeyes_requests_within_slo_total"
UP = f"max by (pool, engine) (manyeyes_engine_state{{{SERVING}}}) == 1"
SCALED = "max by (pool) (manyeyes_scaling_desired_replicas)"
"""Pools whose engines the autoscaler may stop."""
QUEUED = "max by (pool, engine) (manyeyes_engine_waiting + manyeyes_engine_hidden_queue)"
"""Requests that wait in an engine. Own x (n + 2) > 3 x sum means: more than three times the average of the n - 1 other
engines."""
ALL_START = '(sum by (pool) (manyeyes_engine_state{state=~"unknown|starting|warming"}) == on (pool) pool:engines:count)'
"""Pools all of whose engines are starting. EngineStuckStarting fires if that does not end."""
NO_ENGINE_SERVES = f"(pool:engines_up:sum == 0 unless on (pool) {SCALED} == 0 unless on (pool) {ALL_START})"
HAS_FALLBACK = "max by (pool) (manyeyes_fallbacks_total)"


def cluster_starts(window: str) -> str:
    """Query for the number of controller restarts. Prometheus' volume survives `make down` and `make up`, whose effect
    on engines is in its history but is not a fault of the engines."""
    return f'scalar(max(changes(process_start_time_seconds{{job="controller"}}[{window}])) or vector(0))'


def burn(ratio: str, objective: str, factor: float, short: str, long: str, failures: str) -> str:
    """Query that is true if both windows exceed the factor. The threshold is limited to 0.9, so that it can be reached
    with a very low objective too."""
    threshold = f"on (pool) clamp_max({factor} * (1 - max by (pool) ({objective})), 0.9)"
    conditions = [f"{ratio}{window} > {threshold}" for window in (long, short)]
    return f"{conditions[0]} and on (pool) {conditions[1]} and on (pool) {failures} >= {MIN_FAILURES}"


def errors_in(window: str) -> str:
    return f"sum by (pool) (increase({FAILED}[{window}]))"


def late_in(window: str) -> str:
    return f"(sum by (pool) (increase({ANSWERED}[{window}])) - sum by (pool) (increase({WITHIN_SLO}[{window}])))"


USERS = RuleGroup(
    "user_alerts",
    (
        AlertRule(
            "ErrorBurnFast",
            burn("pool:errors:ratio_rate", "manyeyes_slo_availability_ratio", FAST, "5m", "1h", errors_in("1h")),
            "1m",
            "page",
            "{{ $value | humanizePercentage }} of the requests for {{ $labels.pool }} fail.",
        ),
        AlertRule(
            "ErrorBurnSlow",
            burn("pool:errors:ratio_rate", "manyeyes_slo_availability_ratio", SLOW, "30m", "6h", errors_in("6h")),
            "5m",
            "ticket",
            "{{ $value | humanizePercentage }} of the requests for {{ $labels.pool }} have failed for hours.",
        ),
        AlertRule(
            "LatencyBurnFast",
            burn("pool:slow:ratio_rate", "manyeyes_slo_latency_objective_ratio", FAST, "5m", "1h", late_in("1h")),
            "2m",
            "page",
            "{{ $value | humanizePercentage }} of the answers of {{ $labels.pool }} take longer than the objective.",
        ),
        AlertRule(
            "LatencyBurnSlow",
            burn("pool:slow:ratio_rate", "manyeyes_slo_latency_objective_ratio", SLOW, "30m", "6h", late_in("6h")),
            "5m",
            "ticket",
            "{{ $value | humanizePercentage }} of the answers of {{ $labels.pool }} have taken longer than the objective for hours.",
        ),
        AlertRule(
            "GatewayDown",
            "max by (job) (nginx_up) == 0",
            "30s",
            "page",
            "The gateway of {{ $externalLabels.cluster }} does not answer its exporter: clients cannot reach any pool or engine.",
        ),
        AlertRule(
            "PoolEmpty",
            f"{NO_ENGINE_SERVES} unless on (pool) {HAS_FALLBACK}",
            "30s",
            "page",
            "No engine of {{ $labels.pool }} is up and the pool has no fallback: users get 503.",
        ),
        AlertRule(
            "RunningOnFallback",
            f"({NO_ENGINE_SERVES} and on (pool) {HAS_FALLBACK})"
            f" or (pool:fallbacks:ratio_rate5m > 0.05"
            f" and on (pool) sum by (pool) (increase(manyeyes_fallbacks_total[5m])) >= {MIN_FAILURES})",
            "1m",
            "ticket",
            "{{ $labels.pool }} is empty, full or failing: its fallback answers requests.",
        ),
        AlertRule(
            "TurnedAway",
            f'pool:turned_away:ratio_rate5m > 0.05 and on (pool) sum by (pool) (increase(manyeyes_requests_total{{pool!="", status="429"}}[5m])) >= {MIN_FAILURES}',
            "5m",
            "ticket",
            "{{ $value | humanizePercentage }} of the requests for {{ $labels.pool }} are rejected with 429.",
        ),
        AlertRule(
            "RemoteUnreachable",
            "max by (pool) (manyeyes_remote_reachable) == 0",
            "2m",
            "ticket",
            "The remote endpoint of {{ $labels.pool }} is unreachable.",
        ),
    ),
)

ENGINES = RuleGroup(
    "engine_alerts",
    (
        AlertRule(
            "EngineDown",
            'max by (pool, engine) (manyeyes_engine_state{state="down"}) == 1 unless on (pool) ' + SCALED,
            "2m",
            "ticket",
            "{{ $labels.engine }} of {{ $labels.pool }} is down.",
        ),
        AlertRule(
            "EngineStuckStarting",
            'max by (pool, engine) (manyeyes_engine_state{state=~"unknown|starting|warming"}) == 1',
            "15m",
            "ticket",
            "{{ $labels.engine }} of {{ $labels.pool }} has been starting for 15 minutes.",
        ),
        AlertRule(
            "EngineFlapping",
            'sum by (pool, engine) (increase(manyeyes_engine_transitions_total{state="down"}[15m]))'
            f" - {cluster_starts('15m')} > 2.5",
            "0s",
            "ticket",
            "{{ $labels.engine }} of {{ $labels.pool }} went down three times in 15 minutes.",
        ),
        AlertRule(
            "EngineRestarts",
            f'sum by (pool, engine) (resets(vllm:prompt_tokens_total{{job="engines"}}[1h])) - {cluster_starts("1h")} >= 2'
            " or sum by (pool, engine) (increase(manyeyes_hung_restarts_total[1h])) > 0.5",
            "0s",
            "ticket",
            "The process of {{ $labels.engine }} of {{ $labels.pool }} restarted repeatedly within an hour, or was restarted because it hung.",
        ),
        AlertRule(
            "EngineFailing",
            "pool_engine:failed_attempts:ratio_rate5m > 0.1"
            ' and on (pool, engine) sum by (pool, engine) (increase(manyeyes_attempts_total{outcome=~"refused|lost|error|timeout"}[5m])) >= 10'
            f" and on (pool, engine) ({UP})",
            "2m",
            "ticket",
            "{{ $labels.engine }} of {{ $labels.pool }} fails {{ $value | humanizePercentage }} of its requests but counts as up.",
        ),
        AlertRule(
            "HiddenQueueGrowing",
            "pool:hidden_queue:sum / (pool:engines_up:sum > 0) > 8 and on (pool) deriv(pool:hidden_queue:sum[5m]) > 0",
            "2m",
            "ticket",
            "{{ $value | humanize }} requests per engine of {{ $labels.pool }} wait for image preprocessing, and the queue grows.",
        ),
        AlertRule(
            "EngineStarved",
            f"(pool_engine:requests:rate5m and on (pool, engine) ({UP}))"
            f" < on (pool) group_left 0.25 * avg by (pool) (pool_engine:requests:rate5m and on (pool, engine) ({UP}))"
            " and on (pool) sum by (pool) (increase(manyeyes_requests_total{pool!=\"\", engine!=\"\"}[5m])) > 50 * (pool:engines_up:sum > 1)",
            "10m",
            "ticket",
            "{{ $labels.engine }} of {{ $labels.pool }} is up but gets less than a quarter of the average requests in its pool.",
        ),
        AlertRule(
            "EngineOverloaded",
            f"{QUEUED} > 8 and on (pool, engine)"
            f" ({QUEUED} * on (pool) group_left () (count by (pool) ({QUEUED}) + 2) > on (pool) group_left 3 * sum by (pool) ({QUEUED}))",
            "5m",
            "ticket",
            "{{ $value | humanize }} requests wait in {{ $labels.engine }} of {{ $labels.pool }}, more than three times the average of its other engines.",
        ),
        AlertRule(
            "KvCacheFull",
            "pool_engine:kv_cache_use:max > 0.95 and on (pool, engine) pool_engine:preemptions:rate5m > 0",
            "5m",
            "ticket",
            "The KV cache of {{ $labels.engine }} of {{ $labels.pool }} is full, and running requests are preempted.",
        ),
        AlertRule(
            "CacheShareCollapsed",
            "pool:prefix_cache_hits:ratio_rate5m < on (pool) 0.5 * avg_over_time(pool:prefix_cache_hits:ratio_rate5m[6h])"
            " and on (pool) avg_over_time(pool:prefix_cache_hits:ratio_rate5m[6h]) > 0.2"
            " and on (pool) sum by (pool) (increase(manyeyes_requests_total{pool!=\"\", engine!=\"\"}[5m])) > 50",
            "10m",
            "ticket",
            "Engines of {{ $labels.pool }} find {{ $value | humanizePercentage }} of prompt tokens in their cache, less than half of the average of six hours.",
        ),
        AlertRule(
            "ScalingBehind",
            "pool:scaling_missing:max > 0",
            "10m",
            "ticket",
            "Engines of {{ $labels.pool }} that the autoscaler requires but that are not up: {{ $value }}.",
        ),
    ),
)  # fmt: skip

CLUSTER = RuleGroup(
    "cluster_alerts",
    (
        AlertRule(
            "TargetMissing",
            'up{job!="engines"} == 0',
            "2m",
            "ticket",
            "Prometheus of {{ $externalLabels.cluster }} cannot scrape {{ $labels.job }}: alerts about pools and engines may be missing.",
        ),
        AlertRule(
            "ConfigRefused",
            "max by (job) (manyeyes_config_refused) == 1",
            "30s",
            "ticket",
            "cluster.yaml or the keys file of {{ $externalLabels.cluster }} is invalid: pools and engines still use the previous version.",
        ),
        AlertRule(
            "GatewayConfigOutdated",
            "max by (job) (manyeyes_gateway_config_outdated) == 1",
            "1m",
            "ticket",
            "The gateway of {{ $externalLabels.cluster }} does not run with the latest files: a change of pools or keys is not active.",
        ),
        AlertRule(
            "CertificateEndsSoon",
            "min by (file) (manyeyes_certificate_expires_timestamp_seconds) - time() < 86400 * CERTIFICATE_DAYS",
            "1m",
            "ticket",
            "The certificate {{ $labels.file }} of {{ $externalLabels.cluster }}, for all its pools and engines, expires in {{ $value | humanizeDuration }}.",
        ),
        AlertRule(
            "ModelsDiskLow",
            'min by (mountpoint) (node_filesystem_avail_bytes{mountpoint="/disks/models"}) < 1e9 * MODELS_DISK_GB',
            "5m",
            "ticket",
            "{{ $value | humanize1024 }}B are free on the disk with the models of all pools and engines of {{ $externalLabels.cluster }}.",
        ),
        AlertRule(
            "RequestLogLost",
            "sum by (job) (increase(manyeyes_request_log_dropped_total[5m]) + increase(manyeyes_request_log_unreadable_total[5m])) > 0.5",
            "5m",
            "ticket",
            "Lines of the gateway's log of {{ $externalLabels.cluster }} are not counted: metrics of pools and engines are too low.",
        ),
        AlertRule(
            "AlertsNotDelivered",
            "max by (integration) (increase(alertmanager_notifications_failed_total[5m])) > 0.5"
            ' or label_replace(max by (job) (increase(prometheus_rule_evaluation_failures_total[5m])) > 0.5, "integration", "rules", "", "")',
            "0s",
            "ticket",
            "Alerts about pools and engines of {{ $externalLabels.cluster }} are not delivered by {{ $labels.integration }}.",
        ),
        AlertRule(
            "LoadGeneratorLimit",
            "max by (job) (manyeyes_loadtest_limit) == 1",
            "15s",
            "ticket",
            "The load generator of {{ $externalLabels.cluster }} is at its limit: the load test does not measure the pools or engines.",
        ),
    ),
)

GPUS = RuleGroup(
    "gpu_alerts",
    (
        AlertRule(
            "GpuLost",
            '(max_over_time(gpu:use:ratio[1h]) unless gpu:use:ratio) and on () max(up{job="gpu"}) == 1',
            "1m",
            "page",
            "GPU {{ $labels.gpu }} has disappeared, and its engine has failed.",
        ),
        AlertRule(
            "GpuXid",
            "max by (gpu) (DCGM_FI_DEV_XID_ERRORS) > 0",
            "0s",
            "ticket",
            "The driver reports Xid {{ $value }} on GPU {{ $labels.gpu }}; its engine may fail.",
        ),
        AlertRule(
            "GpuHot",
            "gpu:temperature_celsius:max > GPU_HOT_CELSIUS",
            "5m",
            "ticket",
            "GPU {{ $labels.gpu }} is at {{ $value }} °C and throttles; its engine becomes slower.",
        ),
        AlertRule(
            "GpuMemoryFull",
            "gpu:memory_used:ratio > 0.985",
            "5m",
            "ticket",
            "{{ $value | humanizePercentage }} of the memory of GPU {{ $labels.gpu }} is used: its engine may run out of memory.",
        ),
    ),
    gpu=True,
)

GROUPS = (USERS, ENGINES, CLUSTER, GPUS)
ALERTS = tuple(rule for group in GROUPS for rule in group.rules if isinstance(rule, AlertRule))
