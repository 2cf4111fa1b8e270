"""`make status` shows users, pools and engines; `manyeyes report` writes an HTML report.

Exit codes of status: 0 every pool has an engine; 1 a pool has no engine, or there is no pool; 2 the state is unknown.
"""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live

from manyeyes.cli import docker_install, gateway_client, host_info, started_services
from manyeyes.cli.compose import Compose
from manyeyes.cli.process import CommandFailed
from manyeyes.cli.terminal import CliError, columns, print_line, print_ok, print_warning
from manyeyes.config.checkout import ROOT, from_checkout
from manyeyes.config.cluster import Cluster
from manyeyes.monitoring import cluster_status
from manyeyes.monitoring.prometheus_client import PrometheusClient, PrometheusError
from manyeyes.monitoring.report.figures import query_report_data
from manyeyes.monitoring.report.page import render_report

REFRESH_INTERVAL_S = 2.0
TIMEOUT_S = 5.0


def status(config: Path, watch: bool, controller_url: str = "", prometheus_url: str = "") -> int:
    """Prints the status and returns the exit code. Default controller: of this host's Compose cluster. Raises
    CliError."""
    cluster = started_services.configuration(config)
    controller, prometheus = controller_of(cluster, controller_url), prometheus_of(cluster, prometheus_url)

    def collect() -> cluster_status.ClusterStatus:
        return cluster_status.collect_status(controller, prometheus)

    console = Console(width=min(columns(), cluster_status.WIDTH) if not watch else None, highlight=False)
    if watch:
        return _watch(collect, console)
    current = collect()
    console.print(cluster_status.render_status(current))
    if not controller_url and (unhealthy := _list_unhealthy(Compose(cluster.name))):
        print_line(f"\nunhealthy: {', '.join(unhealthy)}")
    return 1 if current.empty_pools or not current.pools else 0


def _watch(collect: Callable[[], cluster_status.ClusterStatus], console: Console) -> int:
    """Updates the status until Ctrl-C, and returns 0. An error is shown, and the next update tries again."""
    try:
        with Live(console=console, screen=console.is_terminal, auto_refresh=False) as live:
            while True:
                try:
                    content = cluster_status.render_status(collect())
                except CliError as error:
                    content = "\n".join(error.problems)
                live.update(content, refresh=True)
                time.sleep(REFRESH_INTERVAL_S)
    except KeyboardInterrupt:
        return 0


def _compose(cluster: Cluster) -> Compose:
    docker = host_info.docker()
    docker_install.require_access(docker)
    if not docker.server:
        raise CliError("Docker is not running, so the cluster is not running. `make up` starts both.")
    compose = Compose.of_started(cluster.name)
    if not compose.containers():
        raise CliError("the cluster is not running. `make up` starts it.")
    return compose


def controller_of(cluster: Cluster, url: str) -> cluster_status.Controller:
    """Returns a function that queries the controller at `url`, or in this host's Compose cluster. Both raise
    CliError."""
    if url:
        return lambda: _query_url(url)
    compose = _compose(cluster)
    return lambda: _query_compose(compose, cluster)


def prometheus_of(cluster: Cluster, url: str) -> PrometheusClient | None:
    """Returns a client for Prometheus at `url`, or on this host; None if monitoring is disabled."""
    if not url and not cluster.monitoring.enabled:
        return None
    return PrometheusClient(url or f"http://127.0.0.1:{cluster.monitoring.prometheus_port}", TIMEOUT_S)


def _query_compose(compose: Compose, cluster: Cluster) -> tuple[dict[str, Any], list[dict[str, str]]]:
    try:
        return gateway_client.status_and_events(compose, cluster)
    except (CommandFailed, TimeoutError, ValueError) as error:
        reason = error.last_line if isinstance(error, CommandFailed) else str(error)
        unhealthy = _list_unhealthy(compose)
        raise CliError(
            f"the controller does not answer: {reason}. The gateway continues with the last known engines.",
            *([f"unhealthy: {', '.join(unhealthy)}"] if unhealthy else []),
        ) from error


def _query_url(url: str) -> tuple[dict[str, Any], list[dict[str, str]]]:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        documents = []
        for path in ("/status", "/api/events"):
            with opener.open(url.rstrip("/") + path, timeout=TIMEOUT_S) as response:
                documents.append(json.load(response))
        return documents[0], documents[1]
    except (OSError, ValueError) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise CliError(f"the controller does not answer at {url}: {reason}") from error


def _list_unhealthy(compose: Compose) -> list[str]:
    """Returns the containers that should run but do not, or that fail their health check."""
    unhealthy = []
    for row in compose.containers():
        exited_normally = row["State"] == "exited" and "(0)" in row["Status"]  # as the downloader does
        if (row["State"] != "running" and not exited_normally) or "(unhealthy)" in row["Status"]:
            unhealthy.append(f"{row['Service']} ({row['Status'].lower()})")
    return unhealthy


NO_PROMETHEUS = (
    "monitoring.enabled is false, so there is no data for a report. Set it to true in {config}, then run `make up`."
)


def report(config: Path, hours: float, out: str, controller_url: str = "", prometheus_url: str = "") -> Path:
    """Writes the report and returns its path. Raises CliError."""
    if not 0 < hours <= 24 * 366:
        raise CliError(f"HOURS: expected a number above 0 and at most a year (8784), got {hours:g}")
    cluster = started_services.configuration(config)
    prometheus = prometheus_of(cluster, prometheus_url)
    if prometheus is None:
        raise CliError(NO_PROMETHEUS.format(config=config))
    end_s = time.time()
    try:
        report_data = query_report_data(prometheus, end_s - 3600 * hours, end_s)
    except PrometheusError as error:
        raise CliError(f"{error}. Is the cluster up? (`make status`)") from error
    notices: list[str] = []
    events: list[tuple[datetime, str]] = []
    try:
        current, recent_events = controller_of(cluster, controller_url)()
        notices = _notices(current)
        events = [(datetime.fromisoformat(event["at"]), event["sentence"]) for event in recent_events]
    except CliError as error:
        # The measurements are useful without events, also for a cluster that was just stopped.
        print_warning(f"the report has no events: {error.problems[0]}")
    file = Path(out) if out else ROOT / "build/report" / f"{time.strftime('%Y%m%d-%H%M')}.html"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(
            render_report(report_data, cluster.name, events, notices, f"manyeyes report --hours {hours:g}"),
            encoding="utf-8",
        )
    except OSError as error:
        raise CliError(f"{file} could not be written: {error.strerror}") from error
    print_ok(f"{from_checkout(file)}, {file.stat().st_size / 1024:.0f} KB; open it in a browser")
    return file


def _notices(current: dict[str, Any]) -> list[str]:
    """Returns each notice once, with its pools."""
    pools_by_notice: dict[str, list[str]] = {}
    for pool in current["pools"]:
        if pool.get("notice"):
            pools_by_notice.setdefault(pool["notice"], []).append(pool["name"])
    return [f"{', '.join(names)}: {notice}." for notice, names in pools_by_notice.items()]
