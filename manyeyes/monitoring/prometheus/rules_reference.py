"""docs/rules.md, made from the rules: `python -m manyeyes.monitoring.prometheus.rules_reference`."""

from manyeyes.monitoring.prometheus.recording import GROUPS
from manyeyes.monitoring.prometheus.rule import Record

HEAD = """# Figures that Prometheus works out ahead of time

Made from `manyeyes/monitoring/prometheus/recording.py` by `make docs`. Dashboards and [alerts](alerts.md) ask these, so that they agree.
A name is `level:metric:operations`. The level is what a series is about and so its labels: `cluster` (none), `pool` (`pool`),
`pool_engine` (`pool`, `engine`), `gpu` (`gpu`). A share or a time has no sample while nothing is asked.

`rate1m` and its like name the time that is looked back on, at `monitoring.alert_speed: 1`. `manyeyes_...` figures are what users saw, as
the gateway logs it ([metrics](metrics.md)); `vllm:...` figures are what engines say.

| name | what it says |
|---|---|
"""
TAIL = """
The `gpu` level and `cluster:energy_...`, `cluster:gpu_...` exist only where NVIDIA's exporter runs (`monitoring.gpu_exporter`).
The hour-long ones are worked out every 30 s, the others at every scrape.
"""


def markdown() -> str:
    """The whole page."""
    rows = [f"| `{rule.name}` | {rule.help} |" for group in GROUPS for rule in group.rules if isinstance(rule, Record)]
    return HEAD + "\n".join(rows) + "\n" + TAIL


if __name__ == "__main__":
    print(markdown(), end="")
