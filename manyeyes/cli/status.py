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
from manyeyes.config.loader import load
from manyeyes.monitoring import cluster_status
from manyeyes.monitoring.prometheus_client import PrometheusClient, PrometheusError
from manyeyes.monitoring.report.figures import query_report_data
from manyeyes.monitoring.report.page import render_report

EVERY_S = 2.0
TIMEOUT_S = 5.0


def status(config: Path, watch: bool, controller_url: str = "", prometheus_url: str = "") -> int:
    """Prints the status and returns the exit code. Default controller: of this host's Compose cluster. Raises
    CliError."""
    cluster = started_services.configuration(config)
    asked, beside = controller_of(cluster, controller_url), prometheus_of(cluster, prometheus_url)

    def seen() -> cluster_status.ClusterStatus:
        return cluster_status.collect_status(asked, beside)

    console = Console(width=min(columns(), cluster_status.WIDTH) if not watch else None, highlight=False)
    if watch:
        return _watch(seen, console)
    now = seen()
    console.print(cluster_status.render_status(now))
    if not controller_url and (odd := _not_well(Compose(cluster.name))):
        print_line(f"\nunhealthy: {', '.join(odd)}")
    return 1 if now.empty_pools or not now.pools else 0


def _watch(seen: Callable[[], cluster_status.ClusterStatus], console: Console) -> int:
    """Updates the status until Ctrl-C, and returns 0. An error is shown, and the next update tries again."""
    try:
        with Live(console=console, screen=console.is_terminal, auto_refresh=False) as live:
            while True:
                try:
                    shown = cluster_status.render_status(seen())
                except CliError as trouble:
                    shown = "\n".join(trouble.problems)
                live.update(shown, refresh=True)
                time.sleep(EVERY_S)
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
        return lambda: _at(url)
    compose = _compose(cluster)
    return lambda: _inside(compose, cluster)


def prometheus_of(cluster: Cluster, url: str) -> PrometheusClient | None:
    """Returns a client for Prometheus at `url`, or on this host; None if monitoring is disabled."""
    if not url and not cluster.monitoring.enabled:
        return None
    return PrometheusClient(url or f"http://127.0.0.1:{cluster.monitoring.prometheus_port}", TIMEOUT_S)


def _inside(compose: Compose, cluster: Cluster) -> tuple[dict[str, Any], list[dict[str, str]]]:
    try:
        return gateway_client.status_and_events(compose, cluster)
    except (CommandFailed, TimeoutError, ValueError) as error:
        why = error.last_line if isinstance(error, CommandFailed) else str(error)
        odd = _not_well(compose)
        raise CliError(
            f"the controller does not answer: {why}. The gateway continues with the last known engines.",
            *([f"unhealthy: {', '.join(odd)}"] if odd else []),
        ) from error


def _at(url: str) -> tuple[dict[str, Any], list[dict[str, str]]]:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        told = []
        for path in ("/status", "/api/events"):
            with opener.open(url.rstrip("/") + path, timeout=TIMEOUT_S) as reply:
                told.append(json.load(reply))
        return told[0], told[1]
    except (OSError, ValueError) as error:
        why = error.reason if isinstance(error, urllib.error.URLError) else error
        raise CliError(f"the controller does not answer at {url}: {why}") from error


def _not_well(compose: Compose) -> list[str]:
    """Returns the containers that should run but do not, or that fail their health check."""
    odd = []
    for row in compose.containers():
        ended_well = row["State"] == "exited" and "(0)" in row["Status"]  # as the downloader does
        if (row["State"] != "running" and not ended_well) or "(unhealthy)" in row["Status"]:
            odd.append(f"{row['Service']} ({row['Status'].lower()})")
    return odd


NO_PROMETHEUS = (
    "monitoring.enabled is false, so there is no data for a report. Set it to true in {config}, then run `make up`."
)


def report(config: Path, hours: float, out: str, controller_url: str = "", prometheus_url: str = "") -> Path:
    """Writes the report and returns its path. Raises CliError."""
    if not 0 < hours <= 24 * 366:
        raise CliError(f"HOURS: expected a number above 0 and at most a year (8784), got {hours:g}")
    cluster = load(config)
    prometheus = prometheus_of(cluster, prometheus_url)
    if prometheus is None:
        raise CliError(NO_PROMETHEUS.format(config=config))
    end_s = time.time()
    try:
        about = query_report_data(prometheus, end_s - 3600 * hours, end_s)
    except PrometheusError as error:
        raise CliError(f"{error}. Is the cluster up? (`make status`)") from error
    notices: list[str] = []
    events: list[tuple[datetime, str]] = []
    try:
        said, told = controller_of(cluster, controller_url)()
        notices = _notices(said)
        events = [(datetime.fromisoformat(event["at"]), event["sentence"]) for event in told]
    except CliError as trouble:
        # The measurements are useful without events, also for a cluster that was just stopped.
        print_warning(f"the report has no events: {trouble.problems[0]}")
    file = Path(out) if out else ROOT / "build/report" / f"{time.strftime('%Y%m%d-%H%M')}.html"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(
            render_report(about, cluster.name, events, notices, f"manyeyes report --hours {hours:g}"), encoding="utf-8"
        )
    except OSError as error:
        raise CliError(f"{file} could not be written: {error.strerror}") from error
    print_ok(f"{from_checkout(file)}, {file.stat().st_size / 1024:.0f} KB; open it in a browser")
    return file


def _notices(said: dict[str, Any]) -> list[str]:
    """Returns each notice once, with its pools."""
    about: dict[str, list[str]] = {}
    for pool in said["pools"]:
        if pool.get("notice"):
            about.setdefault(pool["notice"], []).append(pool["name"])
    return [f"{', '.join(names)}: {notice}." for notice, names in about.items()]
