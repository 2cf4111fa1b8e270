"""The controller and the page on Kubernetes.

The controller tells who is up and counts requests; who is in a pool is the Services' to say. The page is at / of the gateway.
"""

from manyeyes.config.placement import PlacedCluster
from manyeyes.render.kubernetes.gateway import PAGE, places
from manyeyes.render.kubernetes.pod_spec import (
    OWN_USER,
    Json,
    component,
    empty_dir,
    environment,
    kubernetes_object,
    labels,
    pod,
    restricted_security,
)

CONTROLLER_HTTP, CONTROLLER_LOG = 8081, 5140
WEBUI_PORT = 7860
CONFIG = "cluster-config"


def controller(cluster: PlacedCluster) -> list[Json]:
    alive = {"httpGet": {"path": "/live", "port": "http"}, "timeoutSeconds": 5, "failureThreshold": 3}
    container = {
        "name": "controller",
        "image": cluster.images.controller,
        "imagePullPolicy": "IfNotPresent",
        "env": environment(
            {
                "MANYEYES_CONFIG": "/config/cluster.yaml",
                "MANYEYES_INVENTORY": "/config/inventory.yaml",
                "MANYEYES_STATE": "/state",
                "MANYEYES_SERVICES": places(cluster).members_of,
            }
        ),
        "ports": [
            {"name": "http", "containerPort": CONTROLLER_HTTP},
            {"name": "log", "containerPort": CONTROLLER_LOG, "protocol": "UDP"},
        ],
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}},
        "securityContext": restricted_security(),
        "startupProbe": alive | {"periodSeconds": 1, "failureThreshold": 60},
        "readinessProbe": alive | {"periodSeconds": 5},
        "livenessProbe": alive | {"periodSeconds": 30},
        "volumeMounts": [
            {"name": "config", "mountPath": "/config", "readOnly": True},
            {"name": "state", "mountPath": "/state"},
            {"name": "tmp", "mountPath": "/tmp"},
        ],
    }
    ports = [
        {"name": "http", "port": CONTROLLER_HTTP, "targetPort": "http"},
        {"name": "log", "port": CONTROLLER_LOG, "targetPort": "log", "protocol": "UDP"},
    ]
    # It counts requests, and two would each count a part. Requests pass while there is none.
    return _single_copy("controller", container, [empty_dir("state", 0.25), empty_dir("tmp", 0.0625)], ports)


def webui(cluster: PlacedCluster) -> list[Json]:
    answers = {"exec": {"command": ["python", "-m", "webui.healthcheck"]}, "timeoutSeconds": 10, "failureThreshold": 3}
    container = {
        "name": "webui",
        "image": cluster.images.webui,
        "imagePullPolicy": "IfNotPresent",
        "env": environment(
            {
                "MANYEYES_GATEWAY_URL": f"http://gateway-inside:{PAGE}",
                "MANYEYES_CONFIG": "/config/cluster.yaml",
                "HOME": "/tmp",
            }
        ),
        "ports": [{"name": "http", "containerPort": WEBUI_PORT}],
        "resources": {"requests": {"cpu": "200m", "memory": "512Mi"}, "limits": {"memory": "2Gi"}},
        "securityContext": restricted_security(),
        "startupProbe": answers | {"periodSeconds": 3, "failureThreshold": 60},
        "readinessProbe": answers | {"periodSeconds": 30},
        "livenessProbe": answers | {"periodSeconds": 60},
        "volumeMounts": [
            {"name": "config", "mountPath": "/config", "readOnly": True},
            {"name": "tmp", "mountPath": "/tmp"},
        ],
    }
    # What visitors uploaded is in its /tmp.
    ports = [{"name": "http", "port": WEBUI_PORT, "targetPort": "http"}]
    return _single_copy("webui", container, [empty_dir("tmp", 2)], ports)


def _single_copy(name: str, container: Json, volumes: list[Json], ports: list[Json]) -> list[Json]:
    """A Deployment of one pod with the cluster's configuration, and its Service."""
    spec = pod(
        OWN_USER,
        terminationGracePeriodSeconds=10,
        containers=[container],
        volumes=[{"name": "config", "configMap": {"name": CONFIG}}, *volumes],
    )
    deployment = {
        "replicas": 1,
        "revisionHistoryLimit": 3,
        "strategy": {"type": "Recreate"},
        "selector": {"matchLabels": component(name)},
        "template": {"metadata": {"labels": labels(name)}, "spec": spec},
    }
    service = {"selector": component(name), "ports": ports}
    return [
        kubernetes_object("Deployment", name, deployment, version="apps/v1", marked=labels(name)),
        kubernetes_object("Service", name, service, marked=labels(name)),
    ]
