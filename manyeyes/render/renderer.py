"""Configuration and host -> every file that Compose and Prometheus read. Pure: the same input gives the same bytes.

What nginx reads of the configuration is the controller's to write: manyeyes/render/nginx/files.py.
"""

import hashlib
from pathlib import Path

from manyeyes.config.cluster import Cluster
from manyeyes.config.placement import Inventory, place_engines
from manyeyes.render.compose_engines import engines_yaml
from manyeyes.render.compose_env import compose_env
from manyeyes.render.docker_socket_filter import filter_conf
from manyeyes.render.monitoring import alertmanager_yml, more_datasources, prometheus_yml, rules_yml
from manyeyes.render.rendered_file import as_yaml


def render(
    cluster: Cluster,
    inventory: Inventory,
    config_file: Path,
    rendered_dir: Path,
    checkout: str = "",
) -> dict[str, str]:
    """{path inside rendered_dir: text}. Raises LayoutError when the host cannot run the configuration.

    `checkout` stands for the hand-written files that services mount; another value starts those services anew.
    """
    laid_out = place_engines(cluster, inventory)
    files = {
        "inventory.yaml": as_yaml(inventory.model_dump(mode="json")),
        "engines.yaml": engines_yaml(laid_out),
        "prometheus/prometheus.yml": prometheus_yml(laid_out),
        "prometheus/rules.yml": rules_yml(laid_out),
        "alertmanager/alertmanager.yml": alertmanager_yml(laid_out),
        "containers/nginx.conf": filter_conf(laid_out),
        "grafana/more.yaml": more_datasources(laid_out),
    }
    digests = {
        "gateway": _digest(checkout),
        "controller": _digest(laid_out.network.model_dump_json()),
        "webui": _digest(
            str(laid_out.gateway.max_body_mb), laid_out.webui.model_dump_json(exclude={"title", "greeting", "copies"})
        ),
        "prometheus": _digest(files["prometheus/prometheus.yml"], files["prometheus/rules.yml"]),
        "alertmanager": _digest(files["alertmanager/alertmanager.yml"]),
        "grafana": _digest(files["grafana/more.yaml"]),
        "containers": _digest(files["containers/nginx.conf"]),
    }
    return files | {"compose.env": compose_env(laid_out, config_file, rendered_dir, digests)}


def _digest(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:12]
