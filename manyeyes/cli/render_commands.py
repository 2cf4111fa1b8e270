"""`manyeyes render|kubernetes|swarm|docs`: files that are made from the configuration, written where they differ."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import yaml

from manyeyes.cli.terminal import print_line
from manyeyes.config.checkout import ROOT
from manyeyes.config.cluster import Cluster
from manyeyes.config.docs_generator import json_schema, markdown
from manyeyes.config.keys import ApiKeys, load_keys
from manyeyes.config.loader import keys_path, load
from manyeyes.config.placement import DEFAULT_INVENTORY, Inventory, place_engines
from manyeyes.render.kubernetes.kustomize import tree
from manyeyes.render.multi_node_clusters import clusters
from manyeyes.render.rendered_file import write_files
from manyeyes.render.renderer import render
from manyeyes.render.swarm.stack import read_of_repository, stack

COMPOSE_FOLDER = Path("compose/rendered/default")
KUBERNETES_FOLDER = Path("deploy/kubernetes")
SWARM_FOLDER = Path("deploy/swarm")
REFERENCES = {
    "docs/metrics.md": ("manyeyes.controller.metrics",),
    "docs/rules.md": ("manyeyes.monitoring.prometheus.rules", "rules"),
    "docs/alerts.md": ("manyeyes.monitoring.prometheus.rules", "alerts"),
}
KUBERNETES_BY_HAND = frozenset({"README.md"})


def render_compose(config: Path, inventory_file: Path | None, out: Path) -> None:
    """What Compose and the gateway read, for the host that `inventory_file` describes; without it: two GPUs of 24 GiB."""
    inventory = DEFAULT_INVENTORY
    if inventory_file:
        inventory = Inventory.model_validate(yaml.safe_load(inventory_file.read_text(encoding="utf-8")))
    _write(render(place_engines(load(config), inventory), inventory, config, out), out)


def render_kubernetes(config: Path, out: Path) -> None:
    """The Kustomize tree."""
    cluster = load(config)
    files = tree(cluster, load_keys(keys_path(config, cluster)), os.path.relpath(Path.cwd(), out))
    _write(files, out, KUBERNETES_BY_HAND)


def render_swarm(config: Path, out: Path) -> None:
    """A stack for each flavour."""
    cluster = load(config)
    _write(swarm_stacks(cluster, load_keys(keys_path(config, cluster)), out), out)


def swarm_stacks(cluster: Cluster, keys: ApiKeys, out: Path = SWARM_FOLDER) -> dict[str, str]:
    """{FLAVOUR/file: text} for every flavour, to be written to `out`."""
    paths = [
        str(path.relative_to(ROOT))
        for folder in ("nginx", "manyeyes/engine", "manyeyes/observability")
        for path in (ROOT / folder).rglob("*")
    ]
    own = {path: (ROOT / path).read_text(encoding="utf-8") for path in read_of_repository(paths)}
    return {
        f"{flavour}/{name}": text
        for flavour, laid_out in clusters(cluster).items()
        for name, text in stack(laid_out, own, keys, os.path.relpath(ROOT, out.absolute() / flavour)).items()
    }


def write_references() -> None:
    """Documents that are made from code, the JSON Schema and Grafana's dashboards."""
    (ROOT / "docs/configuration.md").write_text(markdown(), encoding="utf-8")
    (ROOT / "config/cluster.schema.json").write_text(json_schema(), encoding="utf-8")
    for page, program in REFERENCES.items():
        made = subprocess.run([sys.executable, "-m", *program], cwd=ROOT, check=True, stdout=subprocess.PIPE)
        (ROOT / page).write_bytes(made.stdout)
    subprocess.run([sys.executable, "-m", "manyeyes.monitoring.grafana.build"], cwd=ROOT, check=True)


def _write(files: Mapping[str, str], out: Path, kept: frozenset[str] = frozenset()) -> None:
    for name in write_files(dict(files), out, kept=kept):
        print_line(f"{out / name}: written")
