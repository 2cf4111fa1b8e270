"""Measures the cost of Prometheus: `python -m benchmarks.monitoring`. Eight emulated engines under load, scraped every 15 s, all rules on.

For each emulated engine, a minimal engine also exposes as many series as vLLM (benchmarks/many_engines.py). Six hours of history are
filled in for the rules that read them, so that the cost is that of a Prometheus that has run for a day.
"""

import argparse
import functools
import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from benchmarks import many_engines
from loadtest.host_info import cpu_s, resident_mb
from manyeyes.devcluster.chat_load import chat_load
from manyeyes.devcluster.cluster import LocalCluster, local_cluster
from manyeyes.devcluster.monitored_cluster import PARTS, MonitoredCluster, monitored_cluster, prometheus_program

ENGINES = 8
FIRST_PORT = 32_000
EVERY_S = 15
HOURS = 6
say = functools.partial(print, flush=True)


def document() -> dict[str, Any]:
    return {
        "pools": [{"name": "big", "model": "org/Big-VL"}],
        "engines": [{"name": f"gpu-{number}", "pool": "big"} for number in range(ENGINES)],
        "controller": {"containers": False},
        "monitoring": {"scrape_interval_s": EVERY_S, "gpu_exporter": True},
    }


def history(running: LocalCluster) -> str:
    """OpenMetrics text with the history that rules over hours read."""
    now = time.time()
    times = [now - HOURS * 3600 + EVERY_S * number for number in range(HOURS * 3600 // EVERY_S)]
    place = f'job="controller",instance="127.0.0.1:{running.ports["controller"]}",pool="big"'
    lines = []
    for metric, more in (
        *(("manyeyes_requests", f',status="{status}",fallback="",cache=""') for status in (200, 500, 502, 503, 504)),
        ("manyeyes_requests_within_slo", ""),
    ):
        if f"# TYPE {metric} counter" not in lines:
            lines.append(f"# TYPE {metric} counter")
        for number in range(ENGINES):
            labels = f'{place},engine="gpu-{number}"{more}'
            lines += [f"{metric}_total{{{labels}}} {step * 30} {at:.3f}" for step, at in enumerate(times)]
    return "\n".join([*lines, "# EOF"]) + "\n"


def restart_with(beside: MonitoredCluster) -> None:
    """Restarts Prometheus with the minimal engines as targets and with the history."""
    beside.kill("prometheus")
    folder = beside.local_cluster.folder / "monitoring"
    file = folder / "prometheus.yml"
    configuration = yaml.safe_load(file.read_text())
    configuration["scrape_configs"].append(
        {
            "job_name": "stand-ins",
            "static_configs": [{"targets": [f"127.0.0.1:{FIRST_PORT + number}" for number in range(ENGINES)]}],
            "fallback_scrape_protocol": "PrometheusText0.0.4",
        }
    )
    file.write_text(yaml.safe_dump(configuration))
    past = folder / "past.txt"
    past.write_text(history(beside.local_cluster))
    subprocess.run(
        [prometheus_program("promtool"), "tsdb", "create-blocks-from", "openmetrics", past, folder / "samples"],
        check=True,
        capture_output=True,
    )
    beside.start("prometheus")


def query_value(beside: MonitoredCluster, query: str) -> float:
    result = beside.ask("query", query=query)["result"]
    return float(result[0]["value"][1]) if result else float("nan")


def measure(beside: MonitoredCluster, seconds: float) -> None:
    pids = {part: beside.local_cluster.processes[f"watch-{part}"].pid for part in PARTS}
    time.sleep(60)  # Prometheus reads its files and compacts them once
    before, began = {part: cpu_s([pid]) for part, pid in pids.items()}, time.monotonic()
    memory: dict[str, list[float]] = {part: [] for part in pids}
    while time.monotonic() - began < seconds:
        time.sleep(5)
        for part, pid in pids.items():
            memory[part].append(resident_mb(pid))
    passed = time.monotonic() - began
    for part, pid in pids.items():
        share = (cpu_s([pid]) - before[part]) / passed
        name = {"gateway": "nginx's exporter", "node": "node-exporter"}.get(part, part)
        say(
            f"{name}: {100 * share:.2f} % of a core over {passed:.0f} s, "
            f"memory median {statistics.median(memory[part]):.0f} MB, maximum {max(memory[part]):.0f} MB"
        )
    say(f"series in memory: {query_value(beside, 'prometheus_tsdb_head_series'):.0f}")
    say(f"samples of one round of scrapes: {query_value(beside, 'sum(scrape_samples_scraped)'):.0f}")
    say(f"rules: {query_value(beside, 'sum(prometheus_rule_group_rules)'):.0f}")
    say(
        f"one evaluation of all rules: {1000 * query_value(beside, 'sum(prometheus_rule_group_last_duration_seconds)'):.0f} ms"
    )
    say(f"rules that failed: {len(beside.failed_rules())}")


def main() -> None:
    options = argparse.ArgumentParser(prog="python -m benchmarks.monitoring", description=__doc__)
    options.add_argument("--seconds", type=float, default=300, help="duration of each measurement")
    options.add_argument("--repeats", type=int, default=3)
    options.add_argument("--users", type=int, default=8)
    chosen = options.parse_args()
    for repeat in range(chosen.repeats):
        with (
            many_engines.many(FIRST_PORT, ENGINES),
            tempfile.TemporaryDirectory() as folder,
            local_cluster(Path(folder), document(), prints_logs=False) as running,
        ):
            running.all_up({f"gpu-{number}" for number in range(ENGINES)})
            with monitored_cluster(running) as beside:
                restart_with(beside)
                with chat_load(running.url, "big", users=chosen.users):
                    say(f"run {repeat + 1}, load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
                    measure(beside, chosen.seconds)


if __name__ == "__main__":
    main()
