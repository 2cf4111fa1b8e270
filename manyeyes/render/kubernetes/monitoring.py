"""For the Prometheus operator: what is scraped, and the rules. Labels are those of one host, so that dashboards and rules are the same."""

from manyeyes.config.placement import PlacedCluster
from manyeyes.monitoring.prometheus.rules import rules
from manyeyes.render.kubernetes.engines import FLAVOUR, POOL
from manyeyes.render.kubernetes.pod_spec import Json, component, kubernetes_object

VERSION = "monitoring.coreos.com/v1"


def objects(cluster: PlacedCluster) -> list[Json]:
    return [_engines(cluster), _gateways(cluster), _controller(cluster), _rules(cluster)]


def found_by(cluster: PlacedCluster) -> dict[str, str]:
    return {"release": cluster.kubernetes.prometheus_release}


def _engines(cluster: PlacedCluster) -> Json:
    relabelings = [
        _constant("job", "engines"),
        _constant("cluster", cluster.name),
        _taken("pool", f"__meta_kubernetes_pod_label_{POOL.replace('.', '_')}"),
        _taken("flavour", f"__meta_kubernetes_pod_label_{FLAVOUR.replace('.', '_')}"),
        # As the gateway and the controller call it: by the name that DNS gives it.
        {
            "sourceLabels": ["__meta_kubernetes_pod_ip"],
            "regex": r"(\d+)\.(\d+)\.(\d+)\.(\d+)",
            "replacement": "$1-$2-$3-$4",
            "targetLabel": "engine",
        },
    ]
    return _pods(cluster, "engine", "engines", "http", relabelings)


def _gateways(cluster: PlacedCluster) -> Json:
    relabelings = [_constant("job", "gateway"), _constant("cluster", cluster.name)]
    return _pods(cluster, "gateway", "gateway", "counters", relabelings)


def _pods(cluster: PlacedCluster, selected: str, name: str, port: str, relabelings: list[Json]) -> Json:
    endpoint = {"port": port, "path": "/metrics", **_often(cluster), "relabelings": relabelings}
    spec = {"selector": {"matchLabels": component(selected)}, "podMetricsEndpoints": [endpoint]}
    return kubernetes_object("PodMonitor", name, spec, version=VERSION, marked=found_by(cluster))


def _controller(cluster: PlacedCluster) -> Json:
    relabelings = [_constant("job", "controller"), _constant("cluster", cluster.name)]
    endpoint = {"port": "http", "path": "/metrics", "honorLabels": True, **_often(cluster), "relabelings": relabelings}
    spec = {"selector": {"matchLabels": component("controller")}, "endpoints": [endpoint]}
    return kubernetes_object("ServiceMonitor", "controller", spec, version=VERSION, marked=found_by(cluster))


def _rules(cluster: PlacedCluster) -> Json:
    """The rules of one host, word for word."""
    return kubernetes_object("PrometheusRule", "manyeyes", rules(cluster), version=VERSION, marked=found_by(cluster))


def _often(cluster: PlacedCluster) -> Json:
    every = f"{cluster.monitoring.scrape_interval_s}s"
    return {"interval": every, "scrapeTimeout": every}


def _constant(label: str, value: str) -> Json:
    return {"targetLabel": label, "replacement": value}


def _taken(label: str, source: str) -> Json:
    return {"sourceLabels": [source], "targetLabel": label}
