"""`python -m loadtest.scaling_report`: the program behind `manyeyes scaling-report`. docs/load-testing.md explains the results.

Exit codes: 0 complete; 1 partial, or a threshold was missed; 2 nothing was measured, with the reason; 130 Ctrl-C.
"""

import argparse
import os
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import orjson

from loadtest.gateway_client import GatewayClient, GatewayUnusable, GrafanaAnnotations
from loadtest.host_info import query_gpus, read_host_info
from loadtest.result_files import ROOT, append_line, shown, write_document
from loadtest.run import RunFailed, console
from loadtest.run_spec import KEY
from loadtest.scaling_report import report
from loadtest.scaling_report import results as lines
from loadtest.scaling_report.backends import SCALE, Backend, BackendError, ComposeBackend, ProcessBackend
from loadtest.scaling_report.measure import ScalingMeasurement
from loadtest.scaling_report.results import (
    PHASES,
    QUICK,
    ClusterVisit,
    PhaseResult,
    PhaseSettings,
    Thresholds,
    phases,
    visits,
)
from loadtest.statistics import parse_slo

LEAST_FREE_MB = 200


class ScalingUsageError(Exception):
    """The command line is invalid. The message is one sentence."""


def numbers(text: str) -> tuple[int, ...]:
    try:
        counts = tuple(sorted({int(word) for word in text.split(",")}))
    except ValueError:
        counts = ()
    if not counts or counts[0] < 1:
        raise argparse.ArgumentTypeError(f"expected numbers of engines separated by commas, as in 1,2,3, got {text!r}")
    return counts


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="manyeyes scaling-report", description="Measures the same work on 1, 2, 3 ... engines and writes a report."
    )
    p.add_argument("--counts", type=numbers, default=(1, 2, 3), help="numbers of engines; 1 is always included")
    p.add_argument("--repeats", type=int, default=3, help="at least 3 show a spread")
    p.add_argument(
        "--on", choices=("processes", "compose"), default="processes", help="emulated engines, or the running cluster"
    )
    p.add_argument("--phases", default=",".join(PHASES), help=f"of {','.join(PHASES)}; default all")
    p.add_argument(
        "--quick", action="store_true", help="shows in minutes that everything works; the figures have no meaning"
    )
    p.add_argument("--out", type=Path, help="output folder; an existing run is continued")
    p.add_argument("--slo", help="first=2,total=5,share=0.95")
    p.add_argument("--scenario", help="what users do; default image")
    p.add_argument("--users-per-engine", type=int, help="enough users to keep an engine busy; default 32")
    p.add_argument("--processes", type=int, default=1, help="of the load generator")
    p.add_argument(
        "--grafana",
        default=os.environ.get("GRAFANA_URL", ""),
        help="URL of a Grafana to annotate; token in GRAFANA_TOKEN",
    )
    gate = p.add_argument_group("thresholds: exit code 1 if one is missed")
    gate.add_argument("--min-efficiency", type=float, help="T(n)/(n T(1)) with every number of engines")
    gate.add_argument("--max-p95", type=float, help="seconds, for the same users on the highest number of engines")
    emulated = p.add_argument_group("--on processes")
    emulated.add_argument(
        "--speed", type=float, default=1.0, help="engines' clock relative to the wall clock; 0.5 halves the CPU use"
    )
    emulated.add_argument("--profile", default="rtx4090d-qwen3-vl-4b", help="timing profile of the engines")
    emulated.add_argument("--frames-together", type=int, default=128, help="video frames that fit into an emulated GPU")
    real = p.add_argument_group("--on compose")
    real.add_argument("--url", default="http://localhost:8080")
    real.add_argument("--pool", default="", help="default: the gateway's first model")
    real.add_argument("--gpu", default="", help="name of the GPU in the report; default from nvidia-smi")
    real.add_argument(
        "--emulated", action="store_true", help="mark the report as emulated, for a cluster of emulated engines"
    )
    real.add_argument("--trusted", default="", help="file with a certificate to trust")
    real.add_argument(
        "--scale", default=SCALE, help=f"command that scales {{pool}} to {{count}} engines; default {SCALE}"
    )
    return p


def main(arguments: Sequence[str]) -> int:
    options = parser().parse_args(arguments)
    # On SIGTERM stop everything that was started, as on Ctrl-C.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        cluster = _cluster(options)
        work, counts, phase_names = _work(options), tuple(sorted({1, *options.counts})), options.phases.split(",")
        if unknown := [name for name in phase_names if name not in PHASES]:
            raise ScalingUsageError(f"unknown phase {unknown[0]!r}. Use one of {', '.join(PHASES)}")
        out = (options.out or ROOT / "build/loadtest" / f"proof-{time.strftime('%Y%m%d-%H%M%S')}").resolve()
        metadata = _begin(out, cluster, work, counts, options.repeats, arguments)
    except (ScalingUsageError, BackendError, GatewayUnusable) as error:
        console.print(f"  no  {error}")
        return 2
    except OSError as error:
        console.print(f"  no  {error.filename}: {error.strerror}. Nothing was measured.")
        return 2
    thresholds = Thresholds(options.min_efficiency, options.max_p95)
    problem, code = "", 0
    try:
        problem = _measure(options, cluster, work, counts, phase_names, out)
    except KeyboardInterrupt:
        problem, code = "interrupted by Ctrl-C", 130
    except (BackendError, RunFailed) as error:
        problem = str(error)
    except OSError as error:
        problem = f"{error.filename or out}: {error.strerror}"
    finally:
        if message := cluster.leave():
            console.print(f"  !!  {message}")
    return _report(out, metadata, problem, thresholds, code, options)


def _cluster(options: argparse.Namespace) -> Backend:
    if not 0 < options.speed <= 100:
        raise ScalingUsageError(f"--speed: expected a number above 0 and at most 100, got {options.speed:g}")
    if options.on == "processes":
        return ProcessBackend(options.speed, options.profile, options.frames_together)
    key = os.environ.get(KEY, "")
    pool = GatewayClient(options.url, key, options.trusted).ready(options.pool)
    return ComposeBackend(
        options.url, key, options.trusted, pool, options.gpu or _gpu(), options.emulated, options.scale
    )


def _gpu() -> str:
    names = query_gpus("name")
    return names[0].strip() if names else "no GPU"


def _work(options: argparse.Namespace) -> PhaseSettings:
    if options.repeats < 1 or options.processes < 1:
        raise ScalingUsageError(
            f"--repeats and --processes: expected 1 or more, got {options.repeats} and {options.processes}"
        )
    if options.users_per_engine is not None and options.users_per_engine < 1:
        raise ScalingUsageError(f"--users-per-engine: expected 1 or more, got {options.users_per_engine}")
    work = QUICK if options.quick else PhaseSettings()
    try:
        work = replace(work, slo=parse_slo(options.slo)) if options.slo else work
    except ValueError as error:
        raise ScalingUsageError(str(error)) from None
    if options.scenario:
        from loadtest import users

        try:
            users.mix(options.scenario)
        except ValueError as error:
            raise ScalingUsageError(str(error)) from None
        work = replace(work, scenario=options.scenario)
    return replace(work, users_per_engine=options.users_per_engine) if options.users_per_engine else work


def _begin(
    out: Path, cluster: Backend, work: PhaseSettings, counts: Sequence[int], repeats: int, arguments: Sequence[str]
) -> dict[str, Any]:
    """Writes about.json, or verifies that the existing file has the same settings."""
    out.mkdir(parents=True, exist_ok=True)
    free_mb = shutil.disk_usage(out).free / 1e6
    if free_mb < LEAST_FREE_MB:
        raise ScalingUsageError(
            f"{out} has {free_mb:.0f} MB free, at least {LEAST_FREE_MB} MB are required. Free disk space or use another --out."
        )
    metadata = {
        "kind": asdict(cluster.kind),
        "work": asdict(work),
        "counts": list(counts),
        "repeats": repeats,
        "machine": asdict(read_host_info(shlex.join(["python", "-m", "loadtest.scaling_report", *arguments]))),
    }
    file = out / "about.json"
    if file.exists():
        earlier = orjson.loads(file.read_bytes())
        for part in ("kind", "work"):
            if earlier[part] != orjson.loads(orjson.dumps(metadata[part])):
                raise ScalingUsageError(
                    f"{file} was made with other settings ({part}). Use the same settings or another --out."
                )
        metadata["counts"] = sorted({*earlier["counts"], *counts})
        metadata["repeats"] = max(repeats, earlier["repeats"])
    write_document(file, metadata)
    return metadata


def _measure(
    options: argparse.Namespace,
    cluster: Backend,
    work: PhaseSettings,
    counts: Sequence[int],
    phase_names: list[str],
    out: Path,
) -> str:
    """Runs the missing measurements. Returns why some are missing; empty if all were done."""
    file = out / "runs.jsonl"
    done = lines.read_good_results(file)
    have = {(phase_result.visit, phase_result.phase) for phase_result in done}
    pending: list[tuple[ClusterVisit, list[Any]]] = []
    for visit in visits(counts, options.repeats):
        missing = [phase for phase in phases(visit.count, phase_names) if (visit, phase) not in have]  # type: ignore[arg-type]
        if missing:
            pending.append((visit, missing))
    problem = ""

    def on_result(result: PhaseResult) -> None:
        nonlocal problem
        append_line(file, result)
        problem = problem or (f"{result.visit}, {result.phase}: {result.trouble}" if result.trouble else "")
        console.print(f"  {'no' if result.trouble else 'ok'}  {result.visit}: {report.short(result)}")

    annotations = GrafanaAnnotations(options.grafana, os.environ.get("GRAFANA_TOKEN", ""))
    model = cluster.kind.about.get("pool") or "qwen3-vl-4b"
    proof = ScalingMeasurement(cluster, work, out, options.processes, model, annotations, on_result, list(done))
    console.print(
        f"  ok  {cluster.kind.gpu}, {cluster.kind.model}{', emulated' if cluster.kind.emulated else ''}: "
        f"{len(pending)} visits to do, {len(done)} phases already measured; results in {shown(out)}"
    )
    for number, (visit, missing) in enumerate(pending, 1):
        proof.visit(visit, missing, f"[{number}/{len(pending)}]")
    return problem


def _report(
    out: Path, metadata: dict[str, Any], problem: str, thresholds: Thresholds, code: int, options: argparse.Namespace
) -> int:
    results = lines.read_good_results(out / "runs.jsonl")
    counts = ",".join(map(str, options.counts))
    again = f"Continue with: manyeyes scaling-report --counts {counts} --out {shown(out)} and the same other settings"
    if not results:
        console.print(f"  no  {problem or 'nothing was measured'}. {again}")
        return code or 2
    try:
        missed = report.write(out, metadata, results, problem, thresholds)
    except OSError as error:
        console.print(f"  no  {error.filename}: {error.strerror}. The measurements are in {shown(out)}/runs.jsonl.")
        return code or 1
    console.print(f"      {shown(out)}: proof.html, proof.md, runs.jsonl")
    if problem:
        console.print(f"  no  partial: {problem}. The measurements so far are saved. {again}")
    for sentence in missed:
        console.print(f"  no  {sentence}")
    return code or (1 if problem or missed else 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
