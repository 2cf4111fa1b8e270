"""Configuration -> rules.yml, as a document: the recording rules and the alerts. Pure.

The objectives are not in it: rules read them from the controller (`manyeyes_slo_...`), so that a pool that is registered while
the cluster runs has its alerts too, and another objective needs no other rules.
"""

import re
from typing import Any

from manyeyes.config.placement import PlacedCluster
from manyeyes.monitoring.prometheus import alerts, recording
from manyeyes.monitoring.prometheus.rule import AlertRule, RecordingRule, RuleGroup

GROUPS: tuple[RuleGroup, ...] = (*recording.GROUPS, *alerts.GROUPS)
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
SLOW_S = 30
RANGE = re.compile(r"\[(\d+[smhd])\]")
SAMPLES = 4
"""A rate over fewer scrapes than this has holes when one is late."""


def rules(cluster: PlacedCluster) -> dict[str, Any]:
    """{"groups": [...]}, as Prometheus reads it and as a PrometheusRule of Kubernetes holds it."""
    shown = [group for group in GROUPS if cluster.watches_gpus or not group.gpu]
    return {"groups": [_group(cluster, group) for group in shown]}


def _group(cluster: PlacedCluster, group: RuleGroup) -> dict[str, Any]:
    interval = {"interval": _quicker(cluster, f"{SLOW_S}s")} if group.slow else {}
    return {"name": group.name, **interval, "rules": [_rule(cluster, rule) for rule in group.rules]}


def _rule(cluster: PlacedCluster, rule: RecordingRule | AlertRule) -> dict[str, Any]:
    if isinstance(rule, RecordingRule):
        return {"record": rule.name, "expr": _in_time(cluster, rule.expr)}
    keep = {"keep_firing_for": _quicker(cluster, rule.keep)} if rule.keep != "0s" else {}
    return {
        "alert": rule.name,
        "expr": _in_time(cluster, rule.expr),
        "for": _quicker(cluster, rule.for_),
        **keep,
        "labels": {"severity": rule.severity},
        "annotations": {
            "summary": rule.summary,
            "runbook_url": f"{cluster.monitoring.runbooks.rstrip('/')}/{rule.name}.md",
        },
    }


def _in_time(cluster: PlacedCluster, expr: str) -> str:
    """With every range as long as this cluster's alerts look back, and its limits in place of their names."""
    monitoring = cluster.monitoring
    for name in ("certificate_days", "models_disk_gb", "gpu_hot_celsius"):
        expr = expr.replace(name.upper(), str(getattr(monitoring, name)))
    least_s = SAMPLES * monitoring.scrape_interval_s
    return RANGE.sub(lambda found: f"[{_quicker(cluster, found[1], least_s)}]", expr)


def _quicker(cluster: PlacedCluster, duration: str, least_s: float = 0) -> str:
    """The duration, divided by `alert_speed`, in whole milliseconds where it is no longer one of seconds."""
    seconds = max(seconds_of(duration) / cluster.monitoring.alert_speed, least_s)
    if seconds == seconds_of(duration):
        return duration
    return f"{seconds:.0f}s" if seconds == int(seconds) else f"{1000 * seconds:.0f}ms"


def seconds_of(duration: str) -> int:
    """Of 90s, 5m, 6h, 1d."""
    return int(duration[:-1]) * SECONDS[duration[-1]]
