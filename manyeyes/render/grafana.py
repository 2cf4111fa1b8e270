"""Cluster -> Grafana's data sources beside Prometheus: Loki and Jaeger, where they are started."""

from typing import Any

from manyeyes.config.cluster import Cluster
from manyeyes.render.header import as_yaml


def more_datasources(cluster: Cluster) -> str:
    """The text of grafana/more.yaml."""
    sources: list[dict[str, Any]] = []
    if cluster.tracing.starts_jaeger:
        sources.append(_source("jaeger", "Jaeger", "http://jaeger:16686", {}))
    if cluster.logs.loki.enabled:
        field = {
            "name": "trace",
            "matcherRegex": r'"trace": ?"([0-9a-f]{32})"',
            "datasourceUid": "jaeger",
            "url": "$${__value.raw}",
        }
        to_traces = {"derivedFields": [field]} if cluster.tracing.starts_jaeger else {}
        sources.append(_source("loki", "Loki", "http://loki:3100", to_traces))
    return as_yaml({"apiVersion": 1, "datasources": sources})


def _source(kind: str, name: str, url: str, more: dict[str, Any]) -> dict[str, Any]:
    source = {"name": name, "uid": kind, "type": kind, "access": "proxy", "url": url, "editable": False}
    return source | ({"jsonData": more} if more else {})
