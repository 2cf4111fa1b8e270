"""Renders every file that Compose and Prometheus read. Pure: the same input gives the same bytes.

The controller writes nginx's files: manyeyes/render/nginx/files.py.
"""

import hashlib
from pathlib import Path

from manyeyes.config.placement import Inventory, PlacedCluster
from manyeyes.render.compose_engines import engines_yaml
from manyeyes.render.compose_env import compose_env
from manyeyes.render.docker_socket_filter import filter_conf
from manyeyes.render.monitoring import (
    alertmanager_mounts,
    alertmanager_yml,
    more_datasources,
    prometheus_yml,
    rules_yml,
)
from manyeyes.render.rendered_file import as_yaml


def render(
    cluster: PlacedCluster,
    inventory: Inventory,
    config_file: Path,
    rendered_dir: Path,
    checkout: str = "",
    alerting_secrets: str = "",
) -> dict[str, str]:
    """{path inside rendered_dir: text}. `inventory`: the hardware that the engines were placed on.

    `checkout` identifies the version of the hand-written files that services mount; another value recreates those
    services. `alerting_secrets` does the same for the files that Alertmanager mounts.
    """
    files = {
        "inventory.yaml": as_yaml(inventory.model_dump(mode="json")),
        "engines.yaml": engines_yaml(cluster),
        "prometheus/prometheus.yml": prometheus_yml(cluster),
        "prometheus/rules.yml": rules_yml(cluster),
        "alertmanager/alertmanager.yml": alertmanager_yml(cluster),
        "monitoring.yaml": alertmanager_mounts(cluster),
        "containers/nginx.conf": filter_conf(cluster),
        "grafana/more.yaml": more_datasources(cluster),
    }
    digests = {
        "gateway": _digest(checkout),
        "controller": _digest(cluster.network.model_dump_json()),
        "webui": _digest(
            str(cluster.gateway.max_body_mb),
            cluster.webui.model_dump_json(exclude={"title", "greeting", "copies", "host_names"}),
        ),
        "prometheus": _digest(files["prometheus/prometheus.yml"], files["prometheus/rules.yml"]),
        "alertmanager": _digest(
            files["alertmanager/alertmanager.yml"], *([alerting_secrets] if alerting_secrets else [])
        ),
        "grafana": _digest(files["grafana/more.yaml"]),
        "containers": _digest(files["containers/nginx.conf"]),
    }
    return files | {"compose.env": compose_env(cluster, config_file, rendered_dir, digests)}


def _digest(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:12]
