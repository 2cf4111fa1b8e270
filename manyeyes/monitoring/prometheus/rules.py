"""Configuration -> rules.yml, as a document: the recording rules and the alerts. Pure.

The objectives are not in it: rules read them from the controller (`manyeyes_slo_...`), so that a pool that is registered while
the cluster runs has its alerts too, and another objective needs no other rules.
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


RULES_HEAD = """# Figures that Prometheus works out ahead of time

Made from `manyeyes/monitoring/prometheus/recording.py` by `make docs`. Dashboards and [alerts](alerts.md) ask these, so that they agree.
A name is `level:metric:operations`. The level is what a series is about and so its labels: `cluster` (none), `pool` (`pool`),
`pool_engine` (`pool`, `engine`), `gpu` (`gpu`). A share or a time has no sample while nothing is asked.

`rate1m` and its like name the time that is looked back on, at `monitoring.alert_speed: 1`. `manyeyes_...` figures are what users saw, as
the gateway logs it ([metrics](metrics.md)); `vllm:...` figures are what engines say.

| name | what it says |
|---|---|
"""
RULES_TAIL = """
The `gpu` level and `cluster:energy_...`, `cluster:gpu_...` exist only where NVIDIA's exporter runs (`monitoring.gpu_exporter`).
The hour-long ones are worked out every 30 s, the others at every scrape.
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

Made from `manyeyes/monitoring/prometheus/alerts.py` by `make docs`. They go by the [figures](rules.md) that dashboards show, and by what a pool
promises (`pools[].slo`). *page* wakes somebody, *ticket* waits for the morning; `monitoring.alerting` in `config/cluster.yaml`
says who is told ([monitoring](monitoring.md)). "After" is how long it has to hold before it comes, at `monitoring.alert_speed: 1`.

| alert, with its runbook | | after | says |
|---|---|---|---|
"""
ALERTS_TAIL = """
Each has cases in `tests/prometheus/cases/` in which it fires and in which it stays silent; promtool runs them in `make check`. The `Gpu...`
ones exist only where NVIDIA's exporter runs.
"""


def alerts_markdown() -> str:
    rows = [
        f"| [{rule.name}](runbooks/{rule.name}.md) | {rule.severity} | {rule.for_} | {_readable(rule.summary)} |"
        for group in alerts.GROUPS
        for rule in group.rules
        if isinstance(rule, AlertRule)
    ]
    return ALERTS_HEAD + "\n".join(rows) + "\n" + ALERTS_TAIL


def _readable(summary: str) -> str:
    """With the names of what is filled in, in place of Prometheus' templates."""
    return re.sub(r"\{\{ \$(?:labels\.|externalLabels\.)?(\w+)[^}]*\}\}", r"*\1*", summary)


if __name__ == "__main__":
    print({"rules": rules_markdown, "alerts": alerts_markdown}[sys.argv[1]](), end="")
