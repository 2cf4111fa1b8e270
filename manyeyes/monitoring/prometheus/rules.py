"""Renders rules.yml, as a document: the recording rules and the alerts. Pure.

The rules read the objectives from the controller (`manyeyes_slo_...`), so that a pool that is registered at run time
has alerts too, and a changed objective needs no new rules.
"""

import re
import sys
from typing import Any

from manyeyes.config.placement import PlacedCluster
from manyeyes.monitoring.prometheus import alerts, recording
from manyeyes.monitoring.prometheus.recording import AlertRule, RecordingRule, RuleGroup

GROUPS: tuple[RuleGroup, ...] = (*recording.GROUPS, *alerts.GROUPS)
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
SLOW_S = 30
RANGE = re.compile(r"\[(\d+[smhd])\]")
MIN_SAMPLES = 4
"""A rate over fewer scrapes than this has gaps if a scrape is late."""


def rules(cluster: PlacedCluster) -> dict[str, Any]:
    """{"groups": [...]}, the format of Prometheus and of Kubernetes' PrometheusRule."""
    groups = [group for group in GROUPS if cluster.watches_gpus or not group.gpu]
    return {"groups": [_group(cluster, group) for group in groups]}


def _group(cluster: PlacedCluster, group: RuleGroup) -> dict[str, Any]:
    interval = {"interval": _scale_duration(cluster, f"{SLOW_S}s")} if group.slow else {}
    return {"name": group.name, **interval, "rules": [_rule(cluster, rule) for rule in group.rules]}


def _rule(cluster: PlacedCluster, rule: RecordingRule | AlertRule) -> dict[str, Any]:
    if isinstance(rule, RecordingRule):
        return {"record": rule.name, "expr": _scale_expression(cluster, rule.expr)}
    keep_firing_for = (
        {"keep_firing_for": _scale_duration(cluster, rule.keep_firing_for)} if rule.keep_firing_for != "0s" else {}
    )
    return {
        "alert": rule.name,
        "expr": _scale_expression(cluster, rule.expr),
        "for": _scale_duration(cluster, rule.for_),
        **keep_firing_for,
        "labels": {"severity": rule.severity},
        "annotations": {
            "summary": rule.summary,
            "runbook_url": f"{cluster.monitoring.runbooks.rstrip('/')}/{rule.name}.md",
        },
    }


def _scale_expression(cluster: PlacedCluster, expr: str) -> str:
    """`expr` with ranges adjusted to this cluster's `alert_speed`, and with its limits in place of their names."""
    monitoring = cluster.monitoring
    for name in ("certificate_days", "models_disk_gb", "gpu_hot_celsius"):
        expr = expr.replace(name.upper(), str(getattr(monitoring, name)))
    min_s = MIN_SAMPLES * monitoring.scrape_interval_s
    return RANGE.sub(lambda match: f"[{_scale_duration(cluster, match[1], min_s)}]", expr)


def _scale_duration(cluster: PlacedCluster, duration: str, min_s: float = 0) -> str:
    """The duration divided by `alert_speed`, in milliseconds if it is not a whole number of seconds."""
    seconds = max(seconds_of(duration) / cluster.monitoring.alert_speed, min_s)
    if seconds == seconds_of(duration):
        return duration
    return f"{seconds:.0f}s" if seconds == int(seconds) else f"{1000 * seconds:.0f}ms"


def seconds_of(duration: str) -> int:
    """Seconds of a duration such as 90s, 5m, 6h or 1d."""
    return int(duration[:-1]) * SECONDS[duration[-1]]


RULES_HEAD = """# Recording rules

Generated from `manyeyes/monitoring/prometheus/recording.py` by `make docs`. Prometheus computes these series in
advance. Dashboards and [alerts](alerts.md) use the same series, so that their values agree.

A name is `level:metric:operations`. The level determines the labels: `cluster` (none), `pool` (`pool`), `pool_engine`
(`pool`, `engine`), `gpu` (`gpu`). Shares and times have no sample while there are no requests.

`rate1m` and similar suffixes are the time window at `monitoring.alert_speed: 1`. Series from `manyeyes_...` metrics are
what users saw, as logged by the gateway ([metrics](metrics.md)); engines measure the series from `vllm:...` metrics.

| name | meaning |
|---|---|
"""
RULES_TAIL = """
The `gpu` level and `cluster:energy_...`, `cluster:gpu_...` exist only if NVIDIA's exporter runs
(`monitoring.gpu_exporter`). Rules over half an hour and more are evaluated every 30 s, all others at every scrape.
"""


def rules_markdown() -> str:
    rows = [
        f"| `{rule.name}` | {rule.help} |"
        for group in recording.GROUPS
        for rule in group.rules
        if isinstance(rule, RecordingRule)
    ]
    return RULES_HEAD + "\n".join(rows) + "\n" + RULES_TAIL


ALERTS_HEAD = """# Alerts

Generated from `manyeyes/monitoring/prometheus/alerts.py` by `make docs`. Alerts use the [recording rules](rules.md)
that dashboards show, and the objectives of pools (`pools[].slo`). A *page* wakes an operator, a *ticket* can wait until
the morning. `monitoring.alerting` in `config/cluster.yaml` sets the receivers ([monitoring](../monitoring.md)). "After"
is how long the condition must be true before the alert fires, at `monitoring.alert_speed: 1`.

| alert, with its runbook | severity | after | summary |
|---|---|---|---|
"""
ALERTS_TAIL = """
Each alert has cases in `tests/prometheus/cases/` in which it fires and in which it is silent; promtool runs them in
`make check`. The `Gpu...` alerts exist only if NVIDIA's exporter runs.
"""


def alerts_markdown() -> str:
    rows = [
        f"| [{rule.name}](../runbooks/{rule.name}.md) | {rule.severity} | {rule.for_} | {_readable(rule.summary)} |"
        for group in alerts.GROUPS
        for rule in group.rules
        if isinstance(rule, AlertRule)
    ]
    return ALERTS_HEAD + "\n".join(rows) + "\n" + ALERTS_TAIL


def _readable(summary: str) -> str:
    """The summary with the names of labels in place of Prometheus' templates."""
    return re.sub(r"\{\{ \$(?:labels\.|externalLabels\.)?(\w+)[^}]*\}\}", r"*\1*", summary)


if __name__ == "__main__":
    print({"rules": rules_markdown, "alerts": alerts_markdown}[sys.argv[1]](), end="")
