"""Cluster -> alertmanager.yml: who is told of which alerts. Secrets are named as files, never written here."""

from typing import Any

from manyeyes.config.cluster import Cluster
from manyeyes.config.monitoring import Email, Webhook
from manyeyes.render.header import as_yaml

SECRETS = "/run/secrets/manyeyes"
"""Where the service mounts the secrets folder."""
SEVERITIES = ("page", "ticket")


def alertmanager_yml(cluster: Cluster) -> str:
    """The text of alertmanager.yml."""
    return as_yaml(alertmanager(cluster))


def alertmanager(cluster: Cluster) -> dict[str, Any]:
    """The same as a document."""
    alerting = cluster.monitoring.alerting
    return {
        "route": {
            "receiver": "ticket",
            # One message for all engines of a pool that have the same.
            "group_by": ["alertname", "pool"],
            "group_wait": "10s",
            "group_interval": "1m",
            "repeat_interval": f"{round(alerting.repeat_h * 60)}m",
            "routes": [{"matchers": ['severity="page"'], "receiver": "page"}],
        },
        "receivers": [_receiver(cluster, severity) for severity in SEVERITIES],
        "inhibit_rules": [
            _silences("ErrorBurnFast", "ErrorBurnSlow", "pool"),
            _silences("LatencyBurnFast", "LatencyBurnSlow", "pool"),
            # Nobody reaches a pool: what its users see says nothing new.
            _silences("GatewayDown", "ErrorBurn.*|LatencyBurn.*|TargetMissing|GatewayBehind"),
            # What it is asked while it goes down fails.
            _silences("EngineFlapping", "EngineFailing", "pool", "engine"),
            _silences("PoolEmpty", "ErrorBurn.*|EngineDown|RunningOnFallback", "pool"),
        ],
    }


def _receiver(cluster: Cluster, severity: str) -> dict[str, Any]:
    alerting = cluster.monitoring.alerting
    webhooks = [_webhook(one) for one in alerting.webhooks if severity in one.severities]
    emails = [_email(one) for one in alerting.emails if severity in one.severities]
    there = {"webhook_configs": webhooks, "email_configs": emails}
    return {"name": severity, **{kind: configs for kind, configs in there.items() if configs}}


def _webhook(webhook: Webhook) -> dict[str, Any]:
    where = {"url": webhook.url} if webhook.url else {"url_file": f"{SECRETS}/{webhook.url_file}"}
    return {**where, "send_resolved": True}


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


def _silences(alert: str, others: str, *same: str) -> dict[str, Any]:
    """While `alert` is told, `others` are not."""
    return {
        "source_matchers": [f'alertname="{alert}"'],
        "target_matchers": [f'alertname=~"{others}"'],
        **({"equal": list(same)} if same else {}),
    }
