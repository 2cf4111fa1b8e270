"""Asks the controller and Prometheus, and says in words what did not answer."""

from collections.abc import Callable
from typing import Any

from manyeyes.monitoring.prometheus_client import Alert, Number, Prometheus, Unanswered
from manyeyes.monitoring.status.snapshot import QUERIES, Sight, sight

OFF = "Prometheus is off (monitoring.enabled: false): no rates, no alerts"

Controller = Callable[[], tuple[dict[str, Any], list[dict[str, str]]]]
"""The controller's /status and /api/events, newest event first."""


def look(controller: Controller, prometheus: Prometheus | None) -> Sight:
    """Whatever `controller` raises goes through; without Prometheus the controller's part is shown alone."""
    status, events = controller()
    numbers: dict[str, list[Number]] = {}
    alerts: list[Alert] = []
    trouble: list[str] = []
    if prometheus is None:
        trouble.append(OFF)
    else:
        try:
            numbers = {name: prometheus.now(query) for name, query in QUERIES.items()}
            alerts = prometheus.alerts()
        except Unanswered as error:
            trouble.append(f"{error}: no rates, no alerts")
    return sight(status, events, numbers, alerts, trouble)
