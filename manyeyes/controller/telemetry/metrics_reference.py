"""docs/metrics.md, made from manyeyes/controller/telemetry/metrics.py: `python -m manyeyes.controller.telemetry.metrics_reference`."""

from prometheus_client import Counter, Gauge

from manyeyes.controller.health.states import EngineState
from manyeyes.controller.telemetry import metrics

HEAD = """# Metrics of the controller

Made from `manyeyes/controller/telemetry/metrics.py` by `make docs`. The controller tells them at `/metrics` on port 8081 inside the cluster; Prometheus
fetches them as job `controller`, and vLLM's own (`vllm:...`) from each engine. The series of an engine or a pool that is gone
are dropped. What is configured starts at 0, so that a rate is 0 and not missing.

| name | type | labels | what it says |
|---|---|---|---|
"""
TAIL = """
States of an engine: {states}. `up` and `suspect` get requests.
"""


def markdown() -> str:
    """The whole page."""
    rows = []
    for metric in metrics.ALL:
        described = next(iter(metric.describe()))
        kind = "counter" if isinstance(metric, Counter) else "gauge" if isinstance(metric, Gauge) else "histogram"
        name = described.name + ("_total" if kind == "counter" else "")
        labels = ", ".join(f"`{label}`" for label in metric._labelnames)
        rows.append(f"| `{name}` | {kind} | {labels} | {described.documentation} |")
    states = ", ".join(f"`{state.value}`" for state in EngineState if state is not EngineState.REMOTE)
    return HEAD + "\n".join(rows) + "\n" + TAIL.format(states=states)


if __name__ == "__main__":
    print(markdown(), end="")
