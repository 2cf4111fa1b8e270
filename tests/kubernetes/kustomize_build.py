"""What `kubectl kustomize` builds of the committed overlays."""

import os
import subprocess
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
OVERLAYS = sorted(path.name for path in (ROOT / "deploy/kubernetes/overlays").iterdir())
Json = dict[str, Any]


def kubectl() -> str:
    """KUBECTL, or the one that tests/kubernetes/fetch unpacks."""
    if named := os.environ.get("KUBECTL"):
        return named
    subprocess.run([ROOT / "tests/kubernetes/fetch", ROOT / "build/kubernetes"], check=True, capture_output=True)
    return str(ROOT / "build/kubernetes/kubectl")


@lru_cache
def built(folder: Path) -> tuple[Json, ...]:
    """Every object, in kustomize's order."""
    run = subprocess.run([kubectl(), "kustomize", folder], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert not run.stderr, run.stderr
    return tuple(yaml.safe_load_all(run.stdout))


def overlay(name: str) -> tuple[Json, ...]:
    return built(ROOT / "deploy/kubernetes/overlays" / name)


def of_kind(objects: tuple[Json, ...], *kinds: str) -> list[Json]:
    return [one for one in objects if one["kind"] in kinds]


def pods(objects: tuple[Json, ...]) -> dict[str, Json]:
    """{name of what makes it: the pod's spec}"""
    return {one["metadata"]["name"]: one["spec"]["template"]["spec"] for one in of_kind(objects, "Deployment", "Job")}


def containers(pod: Json) -> list[Json]:
    return [*pod.get("initContainers", []), *pod["containers"]]
