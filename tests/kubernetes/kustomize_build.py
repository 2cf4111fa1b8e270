"""What `kubectl kustomize` builds of the overlays that the committed configuration renders to."""

import atexit
import os
import shutil
import subprocess
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from manyeyes.config.loader import load
from manyeyes.render.kubernetes.kustomize import tree
from manyeyes.render.rendered_file import write_files

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "config/cluster.yaml"
TREE = ROOT / "build/kubernetes/tree"
"""Inside the checkout: kustomize reads nothing outside of it."""
FILES = tree(load(CONFIG), root=os.path.relpath(ROOT, TREE))
OVERLAYS = sorted(name.split("/")[1] for name in FILES if name.startswith("overlays/"))
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


@lru_cache
def written() -> Path:
    """The whole tree, in a folder of this process' own: test workers write side by side."""
    folder = TREE.with_name(f"tree-{os.getpid()}")
    write_files(FILES, folder)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def overlay(name: str) -> tuple[Json, ...]:
    return built(written() / "overlays" / name)


def of_kind(objects: tuple[Json, ...], *kinds: str) -> list[Json]:
    return [one for one in objects if one["kind"] in kinds]


def pods(objects: tuple[Json, ...]) -> dict[str, Json]:
    """{name of what makes it: the pod's spec}"""
    return {one["metadata"]["name"]: one["spec"]["template"]["spec"] for one in of_kind(objects, "Deployment", "Job")}


def containers(pod: Json) -> list[Json]:
    return [*pod.get("initContainers", []), *pod["containers"]]
