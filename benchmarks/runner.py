"""Runs benchmark jobs: starts the engines and a gateway in front of them, measures, and stops everything."""

import shutil
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from benchmarks import load as works
from benchmarks.gateways import proxies
from benchmarks.gateways.gateway import MODEL, BenchmarkedGateway
from benchmarks.load import LoadSpec
from benchmarks.measurements import SIZES, added_latency, cpu_per_request, run_workload, streaming
from loadtest.host_info import measure_cpu_share
from loadtest.result_files import append_line, read_lines
from loadtest.scaling_report.backends import emulated_engines

MeasurementKind = Literal["work", "best", "cpu", "latency", "stream"]


@dataclass(frozen=True)
class BenchmarkJob:
    """One measurement. `work` and `headers` (how many session headers are sent) are set if `kind` is work or best."""

    kind: MeasurementKind
    gateway: str
    engines: int
    repeat: int
    work: str = ""
    headers: int = 0

    def __str__(self) -> str:
        subject = f"{self.work} on {self.engines} engines" if self.kind in ("work", "best") else self.kind
        more = f", {self.headers} session header(s)" if self.headers else ""
        return f"{self.gateway}: {subject}{more}, repeat {self.repeat + 1}"


@dataclass(frozen=True)
class JobResult:
    """`found`: the figures of the measurement. `failed`: why it failed; empty if it succeeded."""

    job: BenchmarkJob
    found: dict[str, Any]
    failed: str = ""
    busy_before: float = 0.0


def read_job_results(file: Path) -> Iterator[JobResult]:
    for fields in read_lines(file):
        yield JobResult(BenchmarkJob(**fields.pop("job")), **fields)


NO_GATEWAY = "no gateway"


@dataclass(frozen=True)
class BenchmarkSelection:
    kinds: tuple[str, ...]
    works: tuple[str, ...]
    engines: tuple[int, ...]
    headers: tuple[int, ...]
    repeats: int


def plan_jobs(selection: BenchmarkSelection, gateways: Sequence[BenchmarkedGateway]) -> list[BenchmarkJob]:
    """Returns all jobs in order: each repeat runs everything once and starts with a different gateway.

    All work runs on the first number of engines; chats and images also run on the others. Variants of a gateway that are
    not its maker's first choice run chats and images on the first number of engines only.
    """
    jobs: list[BenchmarkJob] = []
    for repeat in range(selection.repeats):
        turned = [*gateways[repeat % len(gateways) :], *gateways[: repeat % len(gateways)]] if gateways else []
        if "work" in selection.kinds:
            for engines in selection.engines:
                jobs += _works(selection, turned, engines, repeat)
        for kind in ("cpu", "latency", "stream"):
            if kind in selection.kinds:
                jobs += _solo(kind, turned, selection.engines[0], repeat)
    return jobs


def _works(
    selection: BenchmarkSelection, gateways: Sequence[BenchmarkedGateway], engines: int, repeat: int
) -> Iterable[BenchmarkJob]:
    first = engines == selection.engines[0]
    for work in selection.works:
        common = work in ("chat", "images")
        if not (first or common):
            continue
        if repeat == 0:
            yield BenchmarkJob("best", NO_GATEWAY, engines, 0, work)
        for headers in selection.headers:
            if headers and not (work == "chat" and first):
                continue
            for gateway in gateways:
                if headers <= len(gateway.headers) and (headers or gateway.leading or (first and common)):
                    yield BenchmarkJob("work", gateway.name, engines, repeat, work, headers)


def _solo(
    kind: MeasurementKind, gateways: Sequence[BenchmarkedGateway], engines: int, repeat: int
) -> Iterable[BenchmarkJob]:
    for gateway in gateways:
        if gateway.leading and gateway.name != NO_GATEWAY:
            yield BenchmarkJob(kind, gateway.name, engines, repeat)


@dataclass(frozen=True)
class BenchmarkExtent:
    """How much of each measurement to run: all of it, or a quick run that only shows that everything works."""

    users_share: float
    conversations_share: float
    seconds: float
    stream_pairs: int
    speed: float
    seed: int
    user_processes: int


FULL = BenchmarkExtent(1.0, 1.0, 6.0, 40, 1.0, 20261121, 1)
QUICK = BenchmarkExtent(1 / 3, 1 / 3, 1.0, 6, 1.0, 20261121, 1)


def run_jobs(
    jobs: Sequence[BenchmarkJob], gateways: Mapping[str, BenchmarkedGateway], extent: BenchmarkExtent, out: Path
) -> None:
    """Runs the jobs and appends a line to out/runs.jsonl for each. Finished jobs are skipped, failed jobs are repeated."""
    file = out / "runs.jsonl"
    done = {finished.job for finished in read_job_results(file) if not finished.failed}
    pending = [job for job in jobs if job not in done]
    started = time.monotonic()
    for number, job in enumerate(pending, 1):
        print(f"[{number}/{len(pending)} {(time.monotonic() - started) / 60:.0f} min] {job}", flush=True)
        busy_before = measure_cpu_share(0.5)
        folder = out / "last"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        try:
            figures = _measure(job, gateways, extent, folder)
            append_line(file, JobResult(job, figures, busy_before=busy_before))
            print(f"      {_short(figures)}", flush=True)
        except Exception as error:  # one failing gateway must not stop hours of measurements of the others
            append_line(file, JobResult(job, {}, f"{type(error).__name__}: {error}"[:2000], busy_before))
            failed_folder = out / f"failed-{number}"
            shutil.rmtree(failed_folder, ignore_errors=True)
            shutil.copytree(folder, failed_folder, ignore_dangling_symlinks=True)
            (failed_folder / "error.txt").write_text(traceback.format_exc())
            print(f"      failed: {str(error)[:300]} ({failed_folder.name}/)", flush=True)


def _measure(
    job: BenchmarkJob, gateways: Mapping[str, BenchmarkedGateway], extent: BenchmarkExtent, folder: Path
) -> dict[str, Any]:
    if job.kind == "best":
        return _best(job, extent, folder)
    gateway = gateways[job.gateway]
    if job.kind == "work":
        with (
            emulated_engines(folder, MODEL, job.engines, [f"--speed={extent.speed:g}"]) as behind,
            gateway.run(folder, behind) as running,
        ):
            order = _order(job, extent, running.targets, list(gateway.headers[: job.headers]))
            return run_workload(order, running, behind, extent.user_processes)
    if job.kind == "stream":
        with emulated_engines(folder, MODEL) as behind, gateway.run(folder, behind) as running:
            return streaming(behind[0], running.targets[0], extent.stream_pairs)
    with proxies.fixed(folder, job.engines) as behind, gateway.run(folder, behind) as running:
        if job.kind == "cpu":
            return {name: cpu_per_request(running, size, extent.seconds) for name, size in SIZES.items()}
        sizes = {name: size for name, size in SIZES.items() if size < 1_000_000}
        return {
            name: added_latency(behind[0], running.targets[0], size, extent.seconds) for name, size in sizes.items()
        }


def _best(job: BenchmarkJob, extent: BenchmarkExtent, folder: Path) -> dict[str, Any]:
    """Runs the same work on one engine with unlimited caches: no gateway can get more tokens from cache."""
    flags = ["--speed=20", "--kv-cache-tokens=1000000000", "--mm-processor-cache-gb=1000"]
    with emulated_engines(folder, MODEL, 1, flags) as behind, proxies.DIRECT.run(folder, behind) as running:
        figures = run_workload(_order(job, extent, running.targets, []), running, behind, extent.user_processes)
    return {"prefix_share": figures["prefix_share"], "picture_share": figures["picture_share"], "flags": flags}


def _order(job: BenchmarkJob, extent: BenchmarkExtent, targets: Sequence[str], headers: list[str]) -> LoadSpec:
    work = works.ALL[job.work]
    return LoadSpec(
        work=work.name,
        seed=extent.seed,
        users=max(2, round(work.users_per_engine * job.engines * extent.users_share)),
        conversations=max(1, round(work.conversations_per_user * extent.conversations_share)),
        targets=list(targets),
        headers=headers,
    )


def _short(figures: Mapping[str, Any]) -> str:
    if "rps" in figures:
        return (
            f"{figures['rps']:.1f} RPS, p95 {figures['total_p95_s']:.2f} s, first token p50 {1e3 * figures['first_p50_s']:.0f} ms, "
            f"cache {figures['prefix_share']:.2f}, busiest engine {figures['busiest_engine']:.2f}, failed {figures['failed']}, "
            f"users' CPU {figures['users_core_share']:.0%} of a core, machine {figures['machine_share']:.0%}"
        )
    if "3 KB" in figures:
        return ", ".join(
            f"{name} "
            + (
                f"{size_figures['cpu_us']:.0f} µs"
                if "cpu_us" in size_figures
                else f"+{size_figures['added_p50_ms']:.2f} ms"
            )
            for name, size_figures in figures.items()
        )
    if "added_first_p50_ms" in figures:
        return f"first token +{figures['added_first_p50_ms']:.2f} ms, together {figures['through_together']:.1%}"
    return ", ".join(f"{name} {value:.3f}" for name, value in figures.items() if isinstance(value, float))
