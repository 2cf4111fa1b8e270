"""docs/alerts.md, made from the alerts: `python -m manyeyes.monitoring.prometheus.alerts_reference`."""

import re

from manyeyes.monitoring.prometheus.alerts import GROUPS
from manyeyes.monitoring.prometheus.rule import Alert

HEAD = """# Alerts

Made from `manyeyes/monitoring/prometheus/alerts.py` by `make docs`. They go by the [figures](rules.md) that dashboards show, and by what a pool
promises (`pools[].slo`). *page* wakes somebody, *ticket* waits for the morning; `monitoring.alerting` in `config/cluster.yaml`
says who is told ([monitoring](monitoring.md)). "After" is how long it has to hold before it comes, at `monitoring.alert_speed: 1`.

| alert, with its runbook | | after | says |
|---|---|---|---|
"""
TAIL = """
Each has cases in `tests/prometheus/cases/` in which it fires and in which it stays silent; promtool runs them in `make check`. The `Gpu...`
ones exist only where NVIDIA's exporter runs.
"""


def markdown() -> str:
    """The whole page."""
    rows = [
        f"| [{rule.name}](runbooks/{rule.name}.md) | {rule.severity} | {rule.for_} | {_readable(rule.summary)} |"
        for group in GROUPS
        for rule in group.rules
        if isinstance(rule, Alert)
    ]
    return HEAD + "\n".join(rows) + "\n" + TAIL


def _readable(summary: str) -> str:
    """With the names of what is filled in, in place of Prometheus' templates."""
    return re.sub(r"\{\{ \$(?:labels\.|externalLabels\.)?(\w+)[^}]*\}\}", r"*\1*", summary)


if __name__ == "__main__":
    print(markdown(), end="")
