"""Configuration and host -> every rendered file. Pure: the same input gives the same bytes."""

from pathlib import Path

from config.cluster import Cluster
from config.inventory import Inventory
from config.layout import lay_out
from render.engines import engines_yaml
from render.environment import compose_env
from render.file import as_yaml
from render.nginx import pools_conf, settings_conf
from render.prometheus import prometheus_yml


def render(cluster: Cluster, inventory: Inventory, config_file: Path, rendered_dir: Path) -> dict[str, str]:
    """{path inside rendered_dir: text}. Raises LayoutError when the host cannot run the configuration."""
    laid_out = lay_out(cluster, inventory)
    return {
        "inventory.yaml": as_yaml(inventory.model_dump(mode="json")),
        "engines.yaml": engines_yaml(laid_out),
        "compose.env": compose_env(laid_out, config_file, rendered_dir),
        "nginx/pools.conf": pools_conf(laid_out),
        "nginx/settings.conf": settings_conf(laid_out),
        "prometheus/prometheus.yml": prometheus_yml(laid_out),
    }
