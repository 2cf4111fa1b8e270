"""`python -m loadtest`: one load test from the command line, as `make loadtest` runs it. docs/load-testing.md explains the results.

Exit codes: 0 done; 1 partial, or the objective was missed; 2 nothing was measured, with the reason; 130 Ctrl-C.
"""

import argparse
import dataclasses
import os
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from loadtest import run_spec, users
from loadtest.gateway_client import (
    ControllerAnnotations,
    EngineLossWatch,
    GatewayClient,
    GatewayUnusable,
    GrafanaAnnotations,
)
from loadtest.host_info import read_host_info
from loadtest.http_client import parse_target
from loadtest.result_files import ROOT, shown, write_document
from loadtest.run import (
    LIMIT_CPU,
    LIMIT_LAG_S,
    RunFailed,
    RunResult,
    console,
    progress,
    publish_textfile,
    read_run,
    run,
)
from loadtest.run_spec import KEY, RunSpec, SearchPlan, length_s, parse_duration
from loadtest.statistics import STANDARD_OBJECTIVE, RunFigures, Window, figures, parse_slo

GENERATOR_WAS_LIMIT = (
    "The load generator was the limit: {cpu:.0%} of a core in its busiest process, timers up to {lag:.0f} ms late. "
    "Use more processes (PROCESSES=) or a separate machine; the engines can do more than the figures show."
)


def document(metadata: dict[str, Any], ran: RunResult, seen: RunFigures, more: dict[str, Any]) -> dict[str, Any]:
    """The content of summary.json. `metadata`: the settings of the run. `more`: the results of a search."""
    return {
        "about": metadata,
        "partial": ran.problem,
        "figures": asdict(seen),
        "generator": {
            "cpu_p95": ran.cpu_p95,
            "lag_p95_s": ran.lag_p95_s,
            "was_limit": ran.generator_was_limit,
            "limit_cpu": LIMIT_CPU,
            "limit_lag_s": LIMIT_LAG_S,
        },
        **more,
    }


def rows(seen: RunFigures) -> list[tuple[str, str]]:
    table = [
        ("Requests a second", f"{seen.rps:.2f}"),
        ("Goodput (within the objective)", f"{seen.goodput_rps:.2f} a second, {seen.kept_share:.1%} of requests"),
        ("Answer p50 / p95 / p99", f"{seen.total_p50_s:.2f} / {seen.total_p95_s:.2f} / {seen.total_p99_s:.2f} s"),
        ("First token p50 / p95 / p99", f"{seen.first_p50_s:.2f} / {seen.first_p95_s:.2f} / {seen.first_p99_s:.2f} s"),
        ("Per token p50 / p95", f"{1e3 * seen.token_p50_s:.1f} / {1e3 * seen.token_p95_s:.1f} ms"),
        ("Tokens a second", f"{seen.tokens_per_s:.0f}"),
        (
            "Prompt tokens from cache",
            "not reported (gateway.report_cached_tokens)" if seen.cached_share is None else f"{seen.cached_share:.0%}",
        ),
        (
            "Answered, failed",
            f"{seen.answered}, {seen.failed}" + "".join(f"; {n} x {reason}" for reason, n in seen.errors.items()),
        ),
    ]
    if seen.video_success is not None:
        table.append(("Videos answered", f"{seen.video_success:.1%} of {seen.videos}"))
    if seen.per_engine:
        table.append(("By engine", ", ".join(f"{name} {count}" for name, count in seen.per_engine.items())))
    return table


DURATION = {"soak": "2h", "diurnal": "24m"}


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog="make loadtest", description="Runs a load test through the gateway.")
    p.add_argument("--users", type=float, help="concurrent users (closed loop)")
    p.add_argument("--rate", type=float, help="users that arrive per second, on average (open loop)")
    p.add_argument("--scenario", default="image", help=f"{', '.join(users.ALL)}, or a mix such as image:3,video:1")
    p.add_argument("--shape", default="steady", help=f"{', '.join(run_spec.NAMES)}; default steady")
    p.add_argument("--duration", default="", help="90s, 10m, 2h; default 60s, soak 2h, diurnal 24m")
    p.add_argument("--url", default="http://localhost:8080", help="default http://localhost:8080")
    p.add_argument("--model", default="", help="default: the gateway's first model")
    p.add_argument(
        "--slo", help="first=2,total=5,share=0.95: a run that misses it exits with code 1; saturate searches by it"
    )
    p.add_argument("--seed", type=int, default=20261121, help="the same seed gives the same questions")
    p.add_argument(
        "--processes", type=int, default=1, help="of the load generator; one process serves some hundreds of users"
    )
    p.add_argument("--pause", type=float, default=1.0, help="factor for the users' pauses; 0: no pauses")
    p.add_argument("--timeout", type=float, default=120.0, help="seconds without a byte after which a request fails")
    p.add_argument(
        "--trusted", default="", help="file with a certificate to trust, for a gateway with a self-signed certificate"
    )
    p.add_argument(
        "--grafana",
        default=os.environ.get("GRAFANA_URL", ""),
        help="URL of a Grafana to annotate; token in GRAFANA_TOKEN",
    )
    p.add_argument("--out", type=Path, help="default build/loadtest/<date>-<scenario>")
    return p


class LoadTestUsageError(Exception):
    """The command line is invalid. The message is one sentence."""


def run_spec_of(options: argparse.Namespace) -> RunSpec:
    """The run specification; model and folder are set later. Raises LoadTestUsageError."""
    if options.users is None and options.rate is None:
        raise LoadTestUsageError(
            "set USERS= or RATE=, for example USERS=20 concurrent users, or RATE=4 arrivals a second"
        )
    if options.users is not None and options.rate is not None:
        raise LoadTestUsageError("set either USERS= (closed loop) or RATE= (open loop), not both")
    level = options.rate if options.users is None else options.users
    if level <= 0 or (options.users is not None and options.users != int(options.users)):
        raise LoadTestUsageError(
            f"{'RATE' if options.users is None else 'USERS'}={level:g}: "
            "expected a whole number of users above 0, or a rate above 0"
        )
    if options.shape not in run_spec.NAMES:
        raise LoadTestUsageError(f"unknown shape {options.shape!r}. Use one of {', '.join(run_spec.NAMES)}")
    if options.processes < 1:
        raise LoadTestUsageError(f"PROCESSES: expected 1 or more, got {options.processes}")
    if options.pause < 0 or options.timeout <= 0:
        raise LoadTestUsageError(
            f"expected --pause of 0 or more and --timeout above 0, got {options.pause:g} and {options.timeout:g}"
        )
    try:
        users.mix(options.scenario)
        parse_target(options.url)
        objective = parse_slo(options.slo) if options.slo else STANDARD_OBJECTIVE
        duration_s = parse_duration(options.duration or DURATION.get(options.shape, "60s"))
    except ValueError as error:
        raise LoadTestUsageError(str(error)) from None
    search = options.shape == run_spec.SATURATE
    return RunSpec(
        url=options.url,
        model="",
        scenario=options.scenario,
        folder="",
        loop="open" if options.users is None else "closed",
        stages=() if search else run_spec.STAGED[options.shape](level, duration_s),
        search=SearchPlan(start=level, settle_s=duration_s / 6, measure_s=duration_s / 2) if search else None,
        slo=objective,
        seed=options.seed,
        processes=options.processes,
        pause=options.pause,
        timeout_s=options.timeout,
        trusted=options.trusted,
    )


def main(arguments: Sequence[str]) -> int:
    options = parser().parse_args(arguments)
    key = os.environ.get(KEY, "")
    try:
        order = run_spec_of(options)
        gateway = GatewayClient(options.url, key, options.trusted)
        order = replace(order, model=gateway.ready(options.model))
        name = f"{time.strftime('%Y%m%d-%H%M%S')}-{options.scenario.replace(':', '').replace(',', '-')}"
        folder = (options.out or ROOT / "build/loadtest" / name).resolve()
        folder.mkdir(parents=True, exist_ok=True)
    except (LoadTestUsageError, GatewayUnusable) as error:
        console.print(f"  no  {error}")
        return 2
    except OSError as error:
        console.print(f"  no  {error.filename}: {error.strerror}. Nothing was measured.")
        return 2
    order = replace(order, folder=str(folder))
    metadata = {
        "command": shlex.join(["python", "-m", "loadtest", *arguments]),
        "order": dataclasses.asdict(order),
        "shape": options.shape,
        "machine": asdict(read_host_info("")),
    }
    title = f"{options.scenario}, {options.shape}, {options.users or options.rate:g} {'users' if options.users else 'a second'}"
    annotations = GrafanaAnnotations(options.grafana, os.environ.get("GRAFANA_TOKEN", ""))
    began_s = time.time()
    try:
        expected_s = _expected_s(order)
        in_cluster = ControllerAnnotations(options.url, options.trusted).during(title, expected_s)
        with (
            in_cluster,
            progress(title, expected_s) as shown,
            publish_textfile(shown) as watch,
            EngineLossWatch(gateway) as losses,
        ):
            ran = run(order, key, watch)
    except KeyboardInterrupt:
        ran = read_run(folder, "interrupted by Ctrl-C")
        _report_result(metadata, order, ran, options.slo is not None)
        return 130
    except (RunFailed, OSError) as error:
        console.print(f"  no  {error}")
        return 2
    finally:
        annotations.annotate(title, began_s, time.time())
    if losses.names and not ran.problem:
        ran = replace(ran, problem=f"{', '.join(sorted(losses.names))} was lost during the run")
    return _report_result(metadata, order, ran, options.slo is not None)


def _expected_s(order: RunSpec) -> float:
    if order.search is None:
        return length_s(order.stages) + 3
    return 0.6 * order.search.max_probes * (order.search.settle_s + order.search.measure_s + order.slo.total_s)


def _report_result(metadata: dict[str, Any], order: RunSpec, ran: RunResult, gated: bool) -> int:
    start_s, end_s = ran.span
    if ran.samples and not start_s:
        start_s, end_s = min(sample.began_s for sample in ran.samples), max(sample.ended_s for sample in ran.samples)
    if ran.problem and ran.samples:
        end_s = min(end_s, max(sample.ended_s for sample in ran.samples))
    # Leave out the first tenth: the queues are still empty.
    window = Window(start_s + 0.1 * (end_s - start_s), end_s)
    run_figures = figures(ran.samples, window, order.slo)
    more: dict[str, Any] = {}
    missed = ""
    if order.search is not None:
        levels_met = [probe["level"] for probe in ran.probes if probe["held"]]
        best = max(levels_met, default=0.0)
        unit = "users" if order.loop == "closed" else "requests a second"
        more = {"search": {"best": best, "unit": unit, "probes": ran.probes}}
        lowest = min((probe["level"] for probe in ran.probes), default=0.0)
        missed = (
            "" if levels_met else f"no level met the objective ({order.slo}); the lowest tried was {lowest:g} {unit}"
        )
        console.print(f"  ok  highest load within the objective: {best:g} {unit} ({order.slo})" if levels_met else "")
        for probe in ran.probes:
            console.print(
                f"      {probe['level']:8.2f}  {'met   ' if probe['held'] else 'missed'}  p95 {probe['total_p95_s']:.2f} s, "
                f"first token p95 {probe['first_p95_s']:.2f} s, {probe['missed']} of {probe['asked']} missed"
            )
    else:
        for label, value in rows(run_figures):
            console.print(f"      {label:32} {value}")
        if gated and run_figures.kept_share < order.slo.share:
            missed = f"the objective was missed: {run_figures.kept_share:.1%} of requests met it, expected {order.slo}"
    if ran.generator_was_limit:
        console.print("  !!  " + GENERATOR_WAS_LIMIT.format(cpu=ran.cpu_p95, lag=1e3 * ran.lag_p95_s))
    if not run_figures.answered and not ran.problem:
        reason = next(iter(run_figures.errors), "") or next(
            (sample.failed for sample in ran.samples if sample.failed), "no request was sent"
        )
        missed = f"no request was answered: {reason}"
    try:
        write_document(ran.folder / "summary.json", document(metadata, ran, run_figures, more))
    except OSError as error:
        ran = replace(ran, problem=ran.problem or f"{ran.folder}/summary.json: {error.strerror}")
    if ran.problem:
        console.print(f"  no  partial: {ran.problem}. {len(ran.samples)} requests are saved in {shown(ran.folder)}.")
    elif missed:
        console.print(f"  no  {missed}")
    console.print(
        f"      {shown(ran.folder)}: summary.json, requests.jsonl, locust.html, locust_stats.csv, locust.json"
    )
    return 1 if ran.problem or missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
