"""Runs Prometheus, Alertmanager and the exporters for a cluster of processes, with the rendered files and Debian's
programs."""

import contextlib
import dataclasses
import json
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx

from manyeyes.config.loader import load
from manyeyes.config.placement import DEFAULT_INVENTORY, Inventory, PlacedCluster, place_engines
from manyeyes.devcluster.cluster import LocalCluster
from manyeyes.devcluster.eventually import eventually
from manyeyes.devcluster.ports import free_port, is_listening
from manyeyes.render.monitoring import Targets, alertmanager_yml, prometheus_yml, rules_yml

ROOT = Path(__file__).resolve().parents[2]
FETCHED = ROOT / "build/prometheus"


@cache
def prometheus_program(name: str) -> str:
    """prometheus, promtool, prometheus-alertmanager, amtool, prometheus-node-exporter or prometheus-nginx-exporter."""
    subprocess.run([ROOT / "manyeyes/devcluster/fetch/prometheus", FETCHED], check=True, capture_output=True)
    return str(FETCHED / name)


def shipped_cluster() -> PlacedCluster:
    """config/cluster.yaml on a host with two GPUs."""
    return place_engines(load(ROOT / "config/cluster.yaml"), DEFAULT_INVENTORY)


DRILL = {"alert_speed": 60, "scrape_interval_s": 1}
"""Settings that shorten two minutes to two seconds."""
PARTS = ("gateway", "node", "alertmanager", "prometheus")


@dataclass
class AlertReceiver:
    port: int
    notifications: list[dict[str, Any]] = field(default_factory=list)
    is_rejecting: bool = False

    def alert_names(self, status: str) -> set[str]:
        """Names of the alerts that it received as `firing` or `resolved`."""
        return {
            alert["labels"]["alertname"]
            for notification in self.notifications
            for alert in notification["alerts"]
            if alert["status"] == status
        }


@dataclass
class MonitoredCluster:
    local_cluster: LocalCluster
    ports: dict[str, int]
    receiver: AlertReceiver

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.ports['prometheus']}"

    @property
    def textfile(self) -> Path:
        return self.local_cluster.folder / "textfile"

    def ask(self, path: str, **parameters: str) -> Any:
        response = self.local_cluster.client.get(f"{self.url}/api/v1/{path}", params=parameters)
        assert response.status_code == 200, response.text
        return response.json()["data"]

    def firing(self) -> set[tuple[str, str]]:
        """(alert, its pool, engine or other subject) of all firing alerts."""
        return {
            (alert["labels"]["alertname"], alert_subject(alert["labels"]))
            for alert in self._alerts()
            if alert["state"] == "firing"
        }

    def _alerts(self) -> list[dict[str, Any]]:
        return list(self.ask("alerts")["alerts"])

    def failed_rules(self) -> list[str]:
        groups = self.ask("rules")["groups"]
        return [
            f"{rule['name']}: {rule['lastError']}"
            for group in groups
            for rule in group["rules"]
            if rule["health"] == "err"
        ]

    def start(self, part: str) -> None:
        port = self.ports[part]
        listen = f"127.0.0.1:{port}"
        folder = self.local_cluster.folder / "monitoring"
        inside = self.local_cluster.ports["inside"]
        command = {
            "gateway": [
                prometheus_program("prometheus-nginx-exporter"),
                f"--nginx.scrape-uri=http://127.0.0.1:{inside}/stub_status",
                f"--web.listen-address={listen}",
            ],
            "node": [
                prometheus_program("prometheus-node-exporter"), "--collector.disable-defaults", "--collector.loadavg", "--collector.textfile",
                f"--collector.textfile.directory={self.textfile}", f"--web.listen-address={listen}",
            ],
            "alertmanager": [
                prometheus_program("prometheus-alertmanager"), f"--config.file={folder}/alertmanager.yml",
                f"--storage.path={folder}/alertmanager", "--cluster.listen-address=", f"--web.listen-address={listen}",
            ],
            "prometheus": [
                prometheus_program("prometheus"), f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/samples",
                f"--web.listen-address={listen}",
            ],
        }[part]  # fmt: skip
        self.local_cluster.start(f"watch-{part}", command)
        eventually(lambda: is_listening(port), 30, 0.1, f"{part} listens")

    def kill(self, part: str) -> None:
        self.local_cluster.kill(f"watch-{part}")


def alert_subject(labels: dict[str, str]) -> str:
    """The most specific label that names the subject of an alert."""
    names = ("engine", "pool", "gpu", "integration", "file", "job")
    return next((labels[name] for name in names if name in labels), "")


@contextlib.contextmanager
def monitored_cluster(running: LocalCluster) -> Iterator[MonitoredCluster]:
    """Starts monitoring for a running cluster whose document has `monitoring: DRILL`.

    Its processes stop with the cluster.
    """
    with _alert_receiver() as receiver:
        ports = {part: free_port() for part in PARTS}
        monitored = MonitoredCluster(running, ports, receiver)
        folder = running.folder / "monitoring"
        (folder / "samples").mkdir(parents=True)
        monitored.textfile.mkdir()
        cluster = place_engines(load(running.folder / "cluster.yaml"), Inventory(flavour="emulated"))
        host = {part: f"127.0.0.1:{port}" for part, port in ports.items()}
        targets = dataclasses.replace(Targets(), controller=f"127.0.0.1:{running.ports['controller']}", **host)
        webhook = {"webhooks": [{"url": f"http://127.0.0.1:{receiver.port}/"}]}
        alerting = cluster.monitoring.alerting.model_validate(webhook)
        alerting_cluster = cluster.model_copy(
            update={"monitoring": cluster.monitoring.model_copy(update={"alerting": alerting})}
        )
        (folder / "prometheus.yml").write_text(prometheus_yml(cluster, targets))
        (folder / "rules.yml").write_text(rules_yml(cluster))
        (folder / "alertmanager.yml").write_text(_shorten_intervals(alertmanager_yml(alerting_cluster)))
        for part in PARTS:
            monitored.start(part)
        eventually(
            lambda: httpx.get(f"{monitored.url}/-/ready", trust_env=False).status_code == 200,
            30,
            0.2,
            "Prometheus is ready",
        )
        yield monitored


def _shorten_intervals(text: str) -> str:
    """alertmanager.yml with intervals of one second."""
    for setting in ("group_wait: 10s", "group_interval: 1m"):
        assert setting in text
        text = text.replace(setting, setting.split()[0] + " 1s")
    return text


@contextlib.contextmanager
def _alert_receiver() -> Iterator[AlertReceiver]:
    receiver = AlertReceiver(free_port())

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if not receiver.is_rejecting:
                receiver.notifications.append(json.loads(body))
            self.send_response(404 if receiver.is_rejecting else 200)
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", receiver.port), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
