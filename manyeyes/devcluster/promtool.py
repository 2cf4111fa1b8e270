"""Prometheus' own programs, as Debian has them; and the rules as the shipped configuration renders them."""

import subprocess
from functools import cache
from pathlib import Path

from manyeyes.config.loader import load
from manyeyes.config.placement import DEFAULT_INVENTORY, PlacedCluster, place_engines
from manyeyes.render.monitoring import rules_yml

ROOT = Path(__file__).resolve().parents[2]
FETCHED = ROOT / "build/prometheus"


@cache
def program(name: str) -> str:
    """prometheus, promtool, prometheus-alertmanager, amtool, prometheus-node-exporter or prometheus-nginx-exporter."""
    subprocess.run([ROOT / "manyeyes/devcluster/fetch/prometheus", FETCHED], check=True, capture_output=True)
    return str(FETCHED / name)


def shipped() -> PlacedCluster:
    """config/cluster.yaml on a host with two GPUs."""
    return place_engines(load(ROOT / "config/cluster.yaml"), DEFAULT_INVENTORY)


def write_rules(folder: Path, cluster: PlacedCluster) -> Path:
    file = folder / "rules.yml"
    file.write_text(rules_yml(cluster))
    return file
