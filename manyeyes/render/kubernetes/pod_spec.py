"""Fields that all pods and objects have in common."""

from collections.abc import Sequence
from typing import Any

from manyeyes.render.rendered_file import plain_yaml

HEADER = "# Made by `make k8s` from config/cluster.yaml. Do not edit: the next `make k8s` overwrites it.\n"

Json = dict[str, Any]


def objects(documents: Sequence[Json]) -> str:
    """Several objects in one file, in the given order."""
    return HEADER + "---\n".join(plain_yaml(document) for document in documents)


def kustomization(**fields: Any) -> str:
    kind = "Component" if fields.pop("component", False) else "Kustomization"
    version = "kustomize.config.k8s.io/v1alpha1" if kind == "Component" else "kustomize.config.k8s.io/v1beta1"
    return HEADER + plain_yaml({"apiVersion": version, "kind": kind, **fields})


OWN_USER = 10001
GATEWAY_USER = 101
PART_OF = {"app.kubernetes.io/part-of": "manyeyes"}


def component(name: str) -> dict[str, str]:
    """The label that Services, policies and budgets select by."""
    return {"app.kubernetes.io/component": name}


def labels(name: str) -> dict[str, str]:
    return {**PART_OF, **component(name)}


def kubernetes_object(
    kind: str, name: str, spec: Json, version: str = "v1", object_labels: dict[str, str] | None = None
) -> Json:
    """One object. The overlay sets its namespace."""
    return {
        "apiVersion": version,
        "kind": kind,
        "metadata": {"name": name, "labels": {**PART_OF, **(object_labels or {})}},
        "spec": spec,
    }


def pod(user: int, **fields: Any) -> Json:
    """Pod fields that meet Pod Security's level "restricted". Processes in the pod cannot call the API server."""
    return {
        "automountServiceAccountToken": False,
        # vLLM would read the variables that Kubernetes makes from Service names: VLLM_PORT of a Service called vllm.
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": user,
            "runAsGroup": user,
            "fsGroup": user,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        **fields,
    }


def deployment(
    name: str,
    replicas: int,
    selector: dict[str, str],
    spec: Json,
    object_labels: dict[str, str],
    pod_labels: dict[str, str] | None = None,
    **fields: Any,
) -> Json:
    """A Deployment of pods with `spec`, selected by `selector`.

    Pods have the Deployment's labels unless `pod_labels` is given.
    """
    return kubernetes_object(
        "Deployment",
        name,
        {
            "replicas": replicas,
            "revisionHistoryLimit": 3,
            **fields,
            "selector": {"matchLabels": selector},
            "template": {"metadata": {"labels": pod_labels or object_labels}, "spec": spec},
        },
        version="apps/v1",
        object_labels=object_labels,
    )


def disruption_budget(name: str, selector: dict[str, str], object_labels: dict[str, str]) -> Json:
    """Limits voluntary evictions to one of these pods at a time."""
    spec = {
        "maxUnavailable": 1,
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
        "selector": {"matchLabels": selector},
    }
    return kubernetes_object("PodDisruptionBudget", name, spec, version="policy/v1", object_labels=object_labels)


def spread_over_nodes(selector: dict[str, str]) -> list[Json]:
    """Spreads these pods evenly over the nodes, as far as there is room."""
    return [
        {
            "maxSkew": 1,
            "topologyKey": "kubernetes.io/hostname",
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": selector},
        }
    ]


def restricted_security() -> Json:
    return {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }


def memory(gb: float) -> str:
    return f"{round(gb * 1024)}Mi"


def empty_dir(name: str, gb: float) -> Json:
    """A volume that is deleted with the pod."""
    return {"name": name, "emptyDir": {"sizeLimit": memory(gb)}}


def environment(values: dict[str, str]) -> list[Json]:
    return [{"name": name, "value": value} for name, value in values.items()]
