"""`manyeyes report`: one page of the last hours, from Prometheus and the controller's events."""

import time
from datetime import datetime
from pathlib import Path
from typing import Any

from manyeyes.cli import status
from manyeyes.cli.errors import CliError
from manyeyes.cli.terminal import print_ok, print_warning
from manyeyes.config.checkout import ROOT
from manyeyes.config.loader import load
from manyeyes.monitoring.prometheus_client import PrometheusError
from manyeyes.monitoring.report.figures import query_report_data
from manyeyes.monitoring.report.page import render_report

NO_PROMETHEUS = (
    "monitoring.enabled is false, so there is nothing to report from. Set it to true in {config}, then `make up`."
)


def report(config: Path, hours: float, out: str, controller_url: str = "", prometheus_url: str = "") -> Path:
    """Where the page was written. Raises Trouble."""
    if not 0 < hours <= 24 * 366:
        raise CliError(f"HOURS is from a few minutes (0.1) to a year, found {hours:g}.")
    cluster = load(config)
    prometheus = status.prometheus(cluster, prometheus_url)
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
        said, told = status.controller_of(cluster, controller_url)()
        notices = _notices(said)
        events = [(datetime.fromisoformat(event["at"]), event["sentence"]) for event in told]
    except CliError as trouble:
        # What was measured is worth a page, also of a cluster that was just stopped.
        print_warning(f"without events: {trouble.problems[0]}")
    file = Path(out) if out else ROOT / "build/report" / f"{time.strftime('%Y%m%d-%H%M')}.html"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(
            render_report(about, cluster.name, events, notices, f"manyeyes report --hours {hours:g}"), encoding="utf-8"
        )
    except OSError as error:
        raise CliError(f"{file} could not be written: {error.strerror}") from error
    shown = file.relative_to(ROOT) if file.is_relative_to(ROOT) else file
    print_ok(f"{shown}, {file.stat().st_size / 1024:.0f} KB, in any browser")
    return file


def _notices(said: dict[str, Any]) -> list[str]:
    """Each notice once, with the pools that it is about."""
    about: dict[str, list[str]] = {}
    for pool in said["pools"]:
        if pool.get("notice"):
            about.setdefault(pool["notice"], []).append(pool["name"])
    return [f"{', '.join(names)}: {notice}." for notice, names in about.items()]
