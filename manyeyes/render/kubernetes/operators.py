"""Objects for clusters with operators: autoscaling, scraping and Prometheus rules.

Pools are scaled by KEDA's ScaledObjects, or by plain HorizontalPodAutoscalers where KEDA is not installed. On one host
the controller scales by `pools[].scaling`; here Kubernetes does, with the same settings: min, max, target, windows and
cool-downs. A pool whose engines differ is not scaled. The Prometheus operator adds the same labels as on one host, so
that dashboards and rules are the same.
"""

from manyeyes.config.engines import max_num_seqs
from manyeyes.config.placement import PlacedCluster
from manyeyes.config.scaling import Scaling
from manyeyes.monitoring.prometheus.rules import rules
from manyeyes.render.kubernetes.engines import FLAVOUR, POOL
from manyeyes.render.kubernetes.pod_spec import Json, component, kubernetes_object
from manyeyes.render.multi_node_clusters import EngineGroup, uniform_pools

BUSY_SHARE = 5
"""Without a target, the target is a fifth of the requests that an engine runs at the same time, as on one host."""


def scaled_objects(cluster: PlacedCluster) -> list[Json]:
    """ScaledObjects for KEDA.

    If Prometheus does not answer, nothing is scaled down: a trigger without a value is an error to the HPA behind it.
    """
    return [_scaled_object(cluster, group) for group in uniform_pools(cluster)]


def autoscalers(cluster: PlacedCluster) -> list[Json]:
    """Plain HorizontalPodAutoscalers, on pod metrics that prometheus-adapter serves (adapter_rules())."""
    return [_autoscaler(cluster, group) for group in uniform_pools(cluster)]


def adapter_rules() -> Json:
    """Values for prometheus-adapter's Helm chart: the two metrics that autoscalers() uses."""
    return {"rules": {"default": False, "custom": [_adapter_rule("waiting"), _adapter_rule("running")]}}


def _scaled_object(cluster: PlacedCluster, group: EngineGroup) -> Json:
    scaling, name = _scaling(group), group.pool.name
    settings = cluster.kubernetes.autoscaling
    pool_selector = f'pool="{name}"'
    triggers = [
        _trigger(cluster, "in-flight", f"sum(manyeyes_engine_in_flight{{{pool_selector}}})", _in_flight(group)),
        _trigger(cluster, "queue", f"sum(manyeyes_engine_waiting{{{pool_selector}}})", settings.waiting),
        _trigger(
            cluster, "hidden-queue", f"sum(manyeyes_engine_hidden_queue{{{pool_selector}}})", settings.hidden_queue
        ),
        _trigger(
            cluster,
            "p95",
            # A pool without requests in the last minutes must not scale up.
            f"histogram_quantile(0.95, sum by (le) (rate(manyeyes_request_duration_seconds_bucket{{{pool_selector}}}[2m]))) > 0 or vector(0)",
            scaling.target.p95_s or settings.p95_s,
            kind="Value",
        ),
    ]
    return kubernetes_object(
        "ScaledObject",
        name,
        {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": group.name},
            **_bounds(cluster, group, scaling, "minReplicaCount", "maxReplicaCount"),
            "pollingInterval": max(5, round(cluster.controller.scaling_interval_s)),
            "advanced": {"horizontalPodAutoscalerConfig": {"name": name, "behavior": _behaviour(scaling)}},
            "triggers": triggers,
        },
        version="keda.sh/v1alpha1",
        object_labels={POOL: name},
    )


def _trigger(cluster: PlacedCluster, name: str, query: str, threshold: float, kind: str = "AverageValue") -> Json:
    return {
        "type": "prometheus",
        "name": name,
        "metricType": kind,
        "metadata": {
            "serverAddress": cluster.kubernetes.prometheus_url,
            "query": query,
            "threshold": f"{threshold:g}",
            "ignoreNullValues": "false",
        },
    }


def _autoscaler(cluster: PlacedCluster, group: EngineGroup) -> Json:
    scaling = _scaling(group)
    return kubernetes_object(
        "HorizontalPodAutoscaler",
        group.pool.name,
        {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": group.name},
            **_bounds(cluster, group, scaling, "minReplicas", "maxReplicas"),
            "behavior": _behaviour(scaling),
            "metrics": [
                _pod_metric("vllm_requests_running", _in_flight(group)),
                _pod_metric("vllm_requests_waiting", cluster.kubernetes.autoscaling.waiting),
            ],
        },
        version="autoscaling/v2",
        object_labels={POOL: group.pool.name},
    )


def _pod_metric(name: str, average: float) -> Json:
    # Kubernetes writes fractions as thousandths.
    value = f"{average:g}" if average == int(average) else f"{round(average * 1000)}m"
    return {
        "type": "Pods",
        "pods": {"metric": {"name": name}, "target": {"type": "AverageValue", "averageValue": value}},
    }


def _adapter_rule(kind: str) -> Json:
    metric = f"vllm:num_requests_{kind}"
    return {
        "seriesQuery": f'{{__name__="{metric}",namespace!="",pod!=""}}',
        "resources": {"overrides": {"namespace": {"resource": "namespace"}, "pod": {"resource": "pod"}}},
        "name": {"matches": "", "as": f"vllm_requests_{kind}"},
        "metricsQuery": "sum(<<.Series>>{<<.LabelMatchers>>}) by (<<.GroupBy>>)",
    }


def _scaling(group: EngineGroup) -> Scaling:
    return group.pool.scaling or Scaling()


def _bounds(cluster: PlacedCluster, group: EngineGroup, scaling: Scaling, min_field: str, max_field: str) -> Json:
    max_replicas = scaling.max or cluster.kubernetes.autoscaling.max_engines or 2 * group.count
    return {min_field: min(scaling.min, max_replicas), max_field: max_replicas}


def _in_flight(group: EngineGroup) -> float:
    return _scaling(group).target.in_flight or max(1, max_num_seqs(group.pool, group.engine) / BUSY_SHARE)


def _behaviour(scaling: Scaling) -> Json:
    return {
        "scaleUp": {
            "stabilizationWindowSeconds": round(scaling.scale_up.window_s),
            "policies": [_policy(scaling.scale_up.step, scaling.scale_up.cool_down_s)],
        },
        "scaleDown": {
            "stabilizationWindowSeconds": min(3600, round(scaling.scale_down.window_s)),
            "policies": [_policy(scaling.scale_down.step, scaling.scale_down.cool_down_s)],
        },
    }


def _policy(step: int, period_s: float) -> Json:
    return {"type": "Pods", "value": step, "periodSeconds": min(1800, max(1, round(period_s)))}


VERSION = "monitoring.coreos.com/v1"


def monitors(cluster: PlacedCluster) -> list[Json]:
    return [
        _engines(cluster),
        _gateways(cluster),
        _controller(cluster),
        kubernetes_object(
            "PrometheusRule", "manyeyes", rules(cluster), version=VERSION, object_labels=monitor_labels(cluster)
        ),
    ]


def monitor_labels(cluster: PlacedCluster) -> dict[str, str]:
    return {"release": cluster.kubernetes.prometheus_release}


def _engines(cluster: PlacedCluster) -> Json:
    relabelings = [
        _constant("job", "engines"),
        _constant("cluster", cluster.name),
        _copied_label("pool", f"__meta_kubernetes_pod_label_{POOL.replace('.', '_')}"),
        _copied_label("flavour", f"__meta_kubernetes_pod_label_{FLAVOUR.replace('.', '_')}"),
        # The name that gateway and controller use, from the pod's name in DNS.
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


def _pods(cluster: PlacedCluster, selected_component: str, name: str, port: str, relabelings: list[Json]) -> Json:
    endpoint = {"port": port, "path": "/metrics", **_scrape_interval(cluster), "relabelings": relabelings}
    spec = {"selector": {"matchLabels": component(selected_component)}, "podMetricsEndpoints": [endpoint]}
    return kubernetes_object("PodMonitor", name, spec, version=VERSION, object_labels=monitor_labels(cluster))


def _controller(cluster: PlacedCluster) -> Json:
    relabelings = [_constant("job", "controller"), _constant("cluster", cluster.name)]
    endpoint = {
        "port": "http",
        "path": "/metrics",
        "honorLabels": True,
        **_scrape_interval(cluster),
        "relabelings": relabelings,
    }
    spec = {"selector": {"matchLabels": component("controller")}, "endpoints": [endpoint]}
    return kubernetes_object(
        "ServiceMonitor", "controller", spec, version=VERSION, object_labels=monitor_labels(cluster)
    )


def _scrape_interval(cluster: PlacedCluster) -> Json:
    interval = f"{cluster.monitoring.scrape_interval_s}s"
    return {"interval": interval, "scrapeTimeout": interval}


def _constant(label: str, value: str) -> Json:
    return {"targetLabel": label, "replacement": value}


def _copied_label(label: str, source: str) -> Json:
    return {"sourceLabels": [source], "targetLabel": label}
