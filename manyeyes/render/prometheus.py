"""Cluster -> prometheus.yml and rules.yml: engines come from the controller's /sd, so they come and go without a restart."""

from dataclasses import dataclass

from manyeyes.config.cluster import Cluster
from manyeyes.monitoring.prometheus.rules import rules
from manyeyes.render.header import as_yaml


@dataclass(frozen=True)
class Targets:
    """host:port of what is scraped. The defaults are those of the containers."""

    controller: str = "controller:8081"
    gateway: str = "nginx-exporter:9113"
    node: str = "node-exporter:9100"
    alertmanager: str = "alertmanager:9093"
    gpu: str = "dcgm-exporter:9400"
    prometheus: str = "localhost:9090"


CONTAINERS = Targets()


def prometheus_yml(cluster: Cluster, targets: Targets = CONTAINERS) -> str:
    """The text of prometheus.yml."""
    interval = f"{cluster.monitoring.scrape_interval_s}s"
    jobs = ["controller", "gateway", "node", "alertmanager", *(["gpu"] if cluster.watches_gpus else []), "prometheus"]
    return as_yaml(
        {
            "global": {
                "scrape_interval": interval,
                "scrape_timeout": interval,
                "evaluation_interval": interval,
                "external_labels": {"cluster": cluster.name},
            },
            "rule_files": ["rules.yml"],
            "alerting": {"alertmanagers": [{"static_configs": [{"targets": [targets.alertmanager]}]}]},
            "scrape_configs": [
                {
                    "job_name": "engines",
                    "http_sd_configs": [{"url": f"http://{targets.controller}/sd", "refresh_interval": "5s"}],
                },
                *({"job_name": job, "static_configs": [{"targets": [getattr(targets, job)]}]} for job in jobs),
            ],
        }
    )


def rules_yml(cluster: Cluster) -> str:
    """The text of rules.yml."""
    return as_yaml(rules(cluster))
