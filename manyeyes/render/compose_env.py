"""Renders compose.env, the settings that the hand-written Compose files read, and Docker's logging options."""

from pathlib import Path
from typing import Any

from manyeyes.config.placement import PlacedCluster
from manyeyes.render.rendered_file import with_header

FILES = 3
"""Log files per container, as in the hand-written Compose files."""


def log_file_size(cluster: PlacedCluster) -> str:
    """Maximum size of one log file, in Docker's notation."""
    return f"{cluster.logs.retention_mb * 1000 // FILES}k"


def logging_options(cluster: PlacedCluster) -> dict[str, Any]:
    rotation = {"max-size": log_file_size(cluster), "max-file": str(FILES)}
    labels = "com.docker.compose.project,com.docker.compose.service"
    return {
        "driver": "json-file",
        "options": {**rotation, "mode": "non-blocking", "max-buffer-size": "4m", "labels": labels},
    }


def compose_env(cluster: PlacedCluster, config_file: Path, rendered_dir: Path, digests: dict[str, str]) -> str:
    """The text of compose.env. Compose requires paths that are absolute or start with ./ from the repository root.

    `digests`: {service: digest of the files it reads at startup}. They become labels, so that Compose recreates a
    service when its files change.
    """
    values = {
        **compose_settings(cluster),
        "CONFIG_DIR": _compose_path(config_file.parent),
        "CONFIG_NAME": config_file.name,
        "RENDERED_DIR": _compose_path(rendered_dir),
        **{f"{service.upper()}_CONFIG_HASH": digest for service, digest in digests.items()},
    }
    return with_header("".join(f"{key}={value}\n" for key, value in values.items()))


def compose_settings(cluster: PlacedCluster) -> dict[str, str]:
    """The settings that come from the configuration."""
    images = {f"{name.upper()}_IMAGE": getattr(cluster.images, name) for name in type(cluster.images).model_fields}
    return {
        **images,
        "CONTROLLER_IP": str(cluster.network.controller_ip),
        "GATEWAY_ADDRESS": f"{cluster.gateway.host}:{cluster.gateway.port}",
        "MAX_BODY_MB": str(cluster.gateway.max_body_mb),
        "PROMETHEUS_PORT": str(cluster.monitoring.prometheus_port),
        "ALERTMANAGER_PORT": str(cluster.monitoring.alertmanager_port),
        "MODELS_DISK": _models_disk(cluster),
        "GPU_EXPORTER_REPLICAS": "1" if cluster.watches_gpus else "0",
        "SCRAPE_INTERVAL": f"{cluster.monitoring.scrape_interval_s}s",
        "PROMETHEUS_RETENTION": f"{cluster.monitoring.retention_days}d",
        "PROMETHEUS_RETENTION_SIZE": f"{cluster.monitoring.retention_gb}GB",
        "CONTAINERS_REPLICAS": "1" if cluster.controller.containers else "0",
        "ADAPTER_REPLICAS": "1" if cluster.starts_adapter else "0",
        "WEBUI_REPLICAS": str(cluster.webui.replicas),
        "LOG_FILE_SIZE": log_file_size(cluster),
        "LOKI_REPLICAS": "1" if cluster.logs.loki.enabled else "0",
        "LOKI_KEEP": f"{24 * cluster.logs.loki.retention_days}h",
        "JAEGER_REPLICAS": "1" if cluster.tracing.starts_jaeger else "0",
        "JAEGER_PORT": str(cluster.tracing.jaeger_port),
        "MONITORING_REPLICAS": "1" if cluster.monitoring.enabled else "0",
    }


def _compose_path(path: Path) -> str:
    return str(path) if path.is_absolute() else f"./{path}"


def _models_disk(cluster: PlacedCluster) -> str:
    """A volume or folder on the disk that holds the models.

    All Docker volumes are on one disk, and the volume `prometheus` always exists.
    """
    has_models = any(engine.flavour != "emulated" for engine in cluster.started_engines)
    return cluster.models.volume if has_models and cluster.models.volume.startswith("/") else "prometheus"
