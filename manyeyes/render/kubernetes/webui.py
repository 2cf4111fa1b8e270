"""The page, at / of the gateway."""

from manyeyes.config.placement import PlacedCluster
from manyeyes.render.kubernetes.controller import CONFIG
from manyeyes.render.kubernetes.gateway import PAGE
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

PORT = 7860


def objects(cluster: PlacedCluster) -> list[Json]:
    return [_deployment(cluster), _service()]


def _deployment(cluster: PlacedCluster) -> Json:
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
        "ports": [{"name": "http", "containerPort": PORT}],
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
    return kubernetes_object(
        "Deployment",
        "webui",
        {
            # One: what visitors uploaded is in its /tmp.
            "replicas": 1,
            "revisionHistoryLimit": 3,
            "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": component("webui")},
            "template": {
                "metadata": {"labels": labels("webui")},
                "spec": pod(
                    OWN_USER,
                    terminationGracePeriodSeconds=10,
                    containers=[container],
                    volumes=[{"name": "config", "configMap": {"name": CONFIG}}, empty_dir("tmp", 2)],
                ),
            },
        },
        version="apps/v1",
        marked=labels("webui"),
    )


def _service() -> Json:
    ports = [{"name": "http", "port": PORT, "targetPort": "http"}]
    return kubernetes_object(
        "Service", "webui", {"selector": component("webui"), "ports": ports}, marked=labels("webui")
    )
