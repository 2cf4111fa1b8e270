"""Objects -> the text of a file, with its first line."""

from collections.abc import Sequence
from typing import Any

from manyeyes.render.header import plain_yaml

HEADER = "# Made by `make k8s` from config/cluster.yaml. Do not edit: the next `make k8s` writes it anew.\n"

Json = dict[str, Any]


def objects(documents: Sequence[Json]) -> str:
    """Several objects in one file, in the given order."""
    return HEADER + "---\n".join(plain_yaml(document) for document in documents)


def kustomization(**fields: Any) -> str:
    """The text of a kustomization.yaml."""
    kind = "Component" if fields.pop("component", False) else "Kustomization"
    version = "kustomize.config.k8s.io/v1alpha1" if kind == "Component" else "kustomize.config.k8s.io/v1beta1"
    return HEADER + plain_yaml({"apiVersion": version, "kind": kind, **fields})
