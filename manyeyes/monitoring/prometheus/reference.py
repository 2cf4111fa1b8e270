"""docs/rules.md and docs/alerts.md, made from the rules: `python -m manyeyes.monitoring.prometheus.reference rules|alerts`."""

import re
import sys

from manyeyes.monitoring.prometheus import alerts, recording
from manyeyes.monitoring.prometheus.rule import AlertRule, RecordingRule

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
    """The whole page."""
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
    """The whole page."""
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
