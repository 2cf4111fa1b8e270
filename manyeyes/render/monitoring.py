"""Renders the files of Prometheus, Alertmanager and Grafana. Secrets are referenced as files and never written here."""

from dataclasses import dataclass
from typing import Any

from manyeyes.config.observability import Email, Webhook
from manyeyes.config.placement import PlacedCluster
from manyeyes.monitoring.prometheus.rules import rules
from manyeyes.render.rendered_file import as_yaml


@dataclass(frozen=True)
class Targets:
    """host:port of each scrape target. The defaults are the containers' names."""

    controller: str = "controller:8081"
    gateway: str = "nginx-exporter:9113"
    node: str = "node-exporter:9100"
    alertmanager: str = "alertmanager:9093"
    gpu: str = "dcgm-exporter:9400"
    prometheus: str = "localhost:9090"


CONTAINER_TARGETS = Targets()


def prometheus_yml(cluster: PlacedCluster, targets: Targets = CONTAINER_TARGETS) -> str:
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


def rules_yml(cluster: PlacedCluster) -> str:
    return as_yaml(rules(cluster))


SECRETS = "/run/secrets/manyeyes"
"""Path under which Alertmanager finds the files of its receivers."""
SEVERITIES = ("page", "ticket")


def alertmanager_yml(cluster: PlacedCluster) -> str:
    alerting = cluster.monitoring.alerting
    document = {
        "route": {
            "receiver": "ticket",
            # One message for all engines of a pool with the same alert.
            "group_by": ["alertname", "pool"],
            "group_wait": "10s",
            "group_interval": "1m",
            "repeat_interval": f"{round(alerting.repeat_interval_h * 60)}m",
            "routes": [{"matchers": ['severity="page"'], "receiver": "page"}],
        },
        "receivers": [_receiver(cluster, severity) for severity in SEVERITIES],
        "inhibit_rules": [
            _inhibit_rule("ErrorBurnFast", "ErrorBurnSlow", "pool"),
            _inhibit_rule("LatencyBurnFast", "LatencyBurnSlow", "pool"),
            # No request reaches a pool, so alerts on requests add nothing.
            _inhibit_rule("GatewayDown", "ErrorBurn.*|LatencyBurn.*|TargetMissing|GatewayConfigOutdated"),
            # Requests fail while an engine goes down.
            _inhibit_rule("EngineFlapping", "EngineFailing", "pool", "engine"),
            _inhibit_rule("PoolEmpty", "ErrorBurn.*|EngineDown|RunningOnFallback", "pool"),
        ],
    }
    return as_yaml(document)


def alertmanager_mounts(cluster: PlacedCluster) -> str:
    """The text of monitoring.yaml: mounts the files of the receivers, and no other file of the secrets folder."""
    alerting = cluster.monitoring.alerting
    files = [webhook.url_file for webhook in alerting.webhooks] + [email.password_file for email in alerting.emails]
    mounts = [
        {
            "type": "bind",
            "source": f"${{SECRETS_DIR:-./secrets}}/{name}",
            "target": f"{SECRETS}/{name}",
            "read_only": True,
            "bind": {"create_host_path": False},
        }
        for name in dict.fromkeys(name for name in files if name)
    ]
    return as_yaml({"services": {"alertmanager": {"volumes": mounts}}})


def _receiver(cluster: PlacedCluster, severity: str) -> dict[str, Any]:
    alerting = cluster.monitoring.alerting
    webhooks = [_webhook(webhook) for webhook in alerting.webhooks if severity in webhook.severities]
    emails = [_email(email) for email in alerting.emails if severity in email.severities]
    configs = {"webhook_configs": webhooks, "email_configs": emails}
    return {"name": severity, **{kind: entries for kind, entries in configs.items() if entries}}


def _webhook(webhook: Webhook) -> dict[str, Any]:
    location = {"url": webhook.url} if webhook.url else {"url_file": f"{SECRETS}/{webhook.url_file}"}
    return {**location, "send_resolved": True}


def _email(email: Email) -> dict[str, Any]:
    login = {"auth_username": email.user} if email.user else {}
    if email.password_file:
        login["auth_password_file"] = f"{SECRETS}/{email.password_file}"
    return {
        "to": email.to,
        "from": email.sender,
        "smarthost": email.server,
        "require_tls": email.tls,
        **login,
        "send_resolved": True,
    }


def _inhibit_rule(alert: str, silenced: str, *equal_labels: str) -> dict[str, Any]:
    """Inhibits `silenced` while `alert` fires."""
    return {
        "source_matchers": [f'alertname="{alert}"'],
        "target_matchers": [f'alertname=~"{silenced}"'],
        **({"equal": list(equal_labels)} if equal_labels else {}),
    }


def more_datasources(cluster: PlacedCluster) -> str:
    """The text of grafana/more.yaml."""
    sources: list[dict[str, Any]] = []
    if cluster.tracing.starts_jaeger:
        sources.append(_source("jaeger", "Jaeger", "http://jaeger:16686", {}))
    if cluster.logs.loki.enabled:
        field = {
            "name": "trace",
            "matcherRegex": r'"trace": ?"([0-9a-f]{32})"',
            "datasourceUid": "jaeger",
            "url": "$${__value.raw}",
        }
        to_traces = {"derivedFields": [field]} if cluster.tracing.starts_jaeger else {}
        sources.append(_source("loki", "Loki", "http://loki:3100", to_traces))
    return as_yaml({"apiVersion": 1, "datasources": sources})


def _source(kind: str, name: str, url: str, json_data: dict[str, Any]) -> dict[str, Any]:
    source = {"name": name, "uid": kind, "type": kind, "access": "proxy", "url": url, "editable": False}
    return source | ({"jsonData": json_data} if json_data else {})
