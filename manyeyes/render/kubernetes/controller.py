"""The controller on Kubernetes: it tells who is up and counts requests; who is in a pool is the Services' to say."""

from manyeyes.config.placement import PlacedCluster
from manyeyes.render.kubernetes.gateway import places
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

HTTP, LOG = 8081, 5140
CONFIG = "cluster-config"


def objects(cluster: PlacedCluster) -> list[Json]:
    return [_deployment(cluster), _service()]


def _deployment(cluster: PlacedCluster) -> Json:
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
            {"name": "http", "containerPort": HTTP},
            {"name": "log", "containerPort": LOG, "protocol": "UDP"},
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
    return kubernetes_object(
        "Deployment",
        "controller",
        {
            # One: it counts requests, and two would each count a part. Requests pass while there is none.
            "replicas": 1,
            "revisionHistoryLimit": 3,
            "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": component("controller")},
            "template": {
                "metadata": {"labels": labels("controller")},
                "spec": pod(
                    OWN_USER,
                    terminationGracePeriodSeconds=10,
                    containers=[container],
                    volumes=[
                        {"name": "config", "configMap": {"name": CONFIG}},
                        empty_dir("state", 0.25),
                        empty_dir("tmp", 0.0625),
                    ],
                ),
            },
        },
        version="apps/v1",
        marked=labels("controller"),
    )


def _service() -> Json:
    return kubernetes_object(
        "Service",
        "controller",
        {
            "selector": component("controller"),
            "ports": [
                {"name": "http", "port": HTTP, "targetPort": "http"},
                {"name": "log", "port": LOG, "targetPort": "log", "protocol": "UDP"},
            ],
        },
        marked=labels("controller"),
    )
