"""Cluster -> prometheus.yml and rules.yml: engines come from the controller's /sd, so they come and go without a restart."""

from config.cluster import Cluster
from monitoring.prometheus.rules import rules
from render.file import as_yaml


def prometheus_yml(cluster: Cluster) -> str:
    """The text of prometheus.yml."""
    interval = f"{cluster.monitoring.scrape_interval_s}s"
    return as_yaml(
        {
            "global": {
                "scrape_interval": interval,
                "scrape_timeout": interval,
                "evaluation_interval": interval,
                "external_labels": {"cluster": cluster.name},
            },
            "rule_files": ["rules.yml"],
            "scrape_configs": [
                {
                    "job_name": "engines",
                    "http_sd_configs": [{"url": "http://controller:8081/sd", "refresh_interval": "5s"}],
                },
                {"job_name": "controller", "static_configs": [{"targets": ["controller:8081"]}]},
                {"job_name": "gateway", "static_configs": [{"targets": ["nginx-exporter:9113"]}]},
                {"job_name": "prometheus", "static_configs": [{"targets": ["localhost:9090"]}]},
            ],
        }
    )


def rules_yml(cluster: Cluster) -> str:
    """The text of rules.yml."""
    return as_yaml(rules(cluster))
