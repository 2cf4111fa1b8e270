"""Client for the parts of Prometheus' HTTP API that the status and the report need. It uses only the standard library.

https://prometheus.io/docs/prometheus/latest/querying/api/
"""

import json
import math
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from datetime import datetime
from typing import Any

TIMEOUT_S = 10.0


class PrometheusError(Exception):
    """Prometheus did not answer or rejected the query; one sentence."""


@dataclass(frozen=True)
class InstantSample:
    labels: dict[str, str]
    value: float


@dataclass(frozen=True)
class TimeSeries:
    """One series over time. Where points are further apart than the step, there is a gap."""

    labels: dict[str, str]
    points: tuple[tuple[float, float], ...]
    """(Unix time in seconds, value)."""


@dataclass(frozen=True)
class ActiveAlert:
    """An alert that is firing or pending."""

    name: str
    state: str
    """`firing` or `pending`."""
    since: datetime
    labels: dict[str, str]
    annotations: dict[str, str]


class PrometheusClient:
    """Client of the server at `url`. Every method raises PrometheusError."""

    def __init__(self, url: str, timeout_s: float = TIMEOUT_S) -> None:
        self.url = url.rstrip("/")
        self._timeout_s = timeout_s
        # Proxies of the environment are for external hosts; Prometheus is on this host.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def query(self, query: str) -> list[InstantSample]:
        """The current result of a query, without series that are not a number (0/0)."""
        results = self._ask("query", query=query)["result"]
        samples = [InstantSample(_labels(result), float(result["value"][1])) for result in results]
        return [sample for sample in samples if math.isfinite(sample.value)]

    def query_range(self, query: str, start_s: float, end_s: float, step_s: float) -> list[TimeSeries]:
        """The result of a query from `start_s` to `end_s`, in Unix time."""
        results = self._ask("query_range", query=query, start=f"{start_s}", end=f"{end_s}", step=f"{step_s}")["result"]
        series_list = []
        for result in results:
            points = tuple((float(at), float(value)) for at, value in result["values"])
            series_list.append(
                TimeSeries(_labels(result), tuple((at, value) for at, value in points if math.isfinite(value)))
            )
        return [series for series in series_list if series.points]

    def alerts(self) -> list[ActiveAlert]:
        """All firing and pending alerts, oldest first."""
        alerts = [
            ActiveAlert(
                alert["labels"].get("alertname", "?"),
                alert["state"],
                datetime.fromisoformat(alert["activeAt"]),
                {key: value for key, value in alert["labels"].items() if key != "alertname"},
                alert.get("annotations", {}),
            )
            for alert in self._ask("alerts")["alerts"]
        ]
        return sorted(alerts, key=lambda alert: alert.since)

    def _ask(self, path: str, **parameters: str) -> dict[str, Any]:
        url = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with self._opener.open(url, timeout=self._timeout_s) as response:
                return dict(json.load(response)["data"])
        except urllib.error.HTTPError as error:
            raise PrometheusError(f"Prometheus rejected a query: {_reason(error)}") from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            reason = error.reason if isinstance(error, urllib.error.URLError) else error
            raise PrometheusError(f"Prometheus does not answer at {self.url}: {reason}") from error


def _labels(series: dict[str, Any]) -> dict[str, str]:
    return {key: value for key, value in series["metric"].items() if key != "__name__"}


def _reason(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.load(error)["error"])
    except (ValueError, KeyError, OSError):
        return f"status {error.code}"
