"""Runs Locust as a separate process: starts it with a `RunSpec`, shows its progress, stops it, and reads its results."""

import contextlib
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import orjson
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from loadtest.result_files import ROOT, read_lines
from loadtest.run_spec import KEY, ORDER, RunSpec, length_s
from loadtest.statistics import Sample, read_samples

ProgressLine = dict[str, Any]
Watch = Callable[[ProgressLine], None]

END_S = 20.0  # after the last stage, in addition to the request timeout
LIMIT_CPU = 0.85
LIMIT_LAG_S = 0.1


class RunFailed(Exception):
    """Locust produced no results. The message says why."""


@dataclass(frozen=True)
class RunResult:
    """The results of a run. `problem`: why they are partial; empty if they are complete."""

    folder: Path
    samples: tuple[Sample, ...]
    problem: str
    cpu_p95: float
    lag_p95_s: float

    @property
    def generator_was_limit(self) -> bool:
        return self.cpu_p95 > LIMIT_CPU or self.lag_p95_s > LIMIT_LAG_S

    @property
    def probes(self) -> list[ProgressLine]:
        return list(read_lines(self.folder / "probes.jsonl"))

    @property
    def span(self) -> tuple[float, float]:
        """Start and end of the stages, in seconds since 1970."""
        stages = list(read_lines(self.folder / "stages.jsonl"))
        return (stages[-1]["start_s"], stages[-1]["end_s"]) if stages else (0.0, 0.0)


def command(order: RunSpec) -> list[str]:
    folder = order.folder
    arguments = [
        sys.executable,
        "-m",
        "locust",
        "-f",
        str(ROOT / "loadtest/locustfile.py"),
        "--headless",
        "--only-summary",
    ]
    arguments += ["--host", order.url, "--loglevel", "WARNING", "--stop-timeout", f"{order.timeout_s:g}"]
    arguments += ["--html", f"{folder}/locust.html", "--json-file", f"{folder}/locust"]
    if order.processes == 1:  # a single process has no separate master to send samples to
        return arguments
    port = str(_free_port())  # another run may use Locust's default port, 5557
    arguments += ["--master-bind-host", "127.0.0.1", "--master-bind-port", port, "--master-port", port]
    return [*arguments, "--processes", str(order.processes)]


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def run(order: RunSpec, key: str = "", watch: Watch = lambda line: None) -> RunResult:
    """Executes the run and returns its results. On KeyboardInterrupt stops Locust gracefully and raises again.

    Raises RunFailed if Locust exited without results.
    """
    folder = Path(order.folder)
    folder.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, ORDER: str(order.write()), KEY: key, "PYTHONPATH": str(ROOT)}
    environment.pop("LOCUST_CONFIG", None)
    with (folder / "locust.log").open("ab") as log:
        process = subprocess.Popen(
            command(order),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            env=environment,
            cwd=folder,
            start_new_session=True,  # Ctrl-C reaches this process, which stops Locust gracefully
        )
    progress_lines: queue.SimpleQueue[ProgressLine | None] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(process, progress_lines), daemon=True).start()
    problem = ""
    try:
        problem = _attend(order, process, progress_lines, watch)
    except BaseException:
        _end(process, order.timeout_s)
        raise
    finally:
        _end(process, 5)
    ran = read_run(folder, problem)
    if process.returncode and not ran.samples and not problem:
        raise RunFailed(f"Locust exited with code {process.returncode}: {_last_line(folder / 'locust.log')}")
    return ran


def _attend(
    order: RunSpec,
    process: "subprocess.Popen[bytes]",
    progress_lines: "queue.SimpleQueue[ProgressLine | None]",
    watch: Watch,
) -> str:
    deadline = time.monotonic() + _longest_s(order)
    problem = ""
    while True:
        try:
            line = progress_lines.get(timeout=1)
        except queue.Empty:
            if time.monotonic() > deadline:
                return f"Locust did not exit within {_longest_s(order):.0f} s"
            continue
        if line is None:
            process.wait(timeout=30)
            return problem or (f"Locust exited with code {process.returncode}" if process.returncode else "")
        problem = line.get("problem") or problem
        if "rps" in line:
            watch(line)


def _longest_s(order: RunSpec) -> float:
    if order.search is None:
        return length_s(order.stages) + order.timeout_s + END_S
    probe_s = order.search.settle_s + order.search.measure_s + 40 * order.slowdown
    return order.search.max_probes * probe_s + order.timeout_s + END_S


def _listen(process: "subprocess.Popen[bytes]", progress_lines: "queue.SimpleQueue[ProgressLine | None]") -> None:
    assert process.stdout
    for line in process.stdout:
        if line.startswith(b"{"):
            with contextlib.suppress(orjson.JSONDecodeError):
                progress_lines.put(orjson.loads(line))
    progress_lines.put(None)


def _end(process: "subprocess.Popen[bytes]", patience_s: float) -> None:
    """Stops Locust. It writes its reports on SIGINT; if it does not exit in time, its whole process group is killed."""
    for number, wait_s in ((signal.SIGINT, patience_s), (signal.SIGTERM, 5), (signal.SIGKILL, 5)):
        if process.poll() is not None:
            break
        with contextlib.suppress(ProcessLookupError):
            if number == signal.SIGINT:
                process.send_signal(number)
            else:
                os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=wait_s)


def read_run(folder: Path, problem: str = "") -> RunResult:
    """Reads the results of a run, complete or partial, from its folder."""
    generator = list(read_lines(folder / "generator.jsonl"))
    # Leave out the first two seconds, in which the processes start.
    started = min((line["at_s"] for line in generator), default=0.0)
    later = [line for line in generator if line["at_s"] > started + 2] or generator
    cpu, lag = sorted(line["cpu"] for line in later), sorted(line["lag_s"] for line in later)
    return RunResult(
        folder=folder,
        samples=tuple(read_samples(folder / "requests.jsonl")),
        problem=problem,
        cpu_p95=cpu[int(0.95 * (len(cpu) - 1))] if cpu else 0.0,
        lag_p95_s=lag[int(0.95 * (len(lag) - 1))] if lag else 0.0,
    )


def _last_line(file: Path) -> str:
    text = file.read_text(errors="replace").strip() if file.exists() else ""
    return text.splitlines()[-1] if text else "its log is empty"


console = Console(highlight=False, soft_wrap=True)
QUIET_EVERY_S = 15.0
T = TypeVar("T")


@contextlib.contextmanager
def progress(title: str, seconds: float) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Shows the progress of a run that should take `seconds`. Yields a function to call with each line from Locust."""
    started = time.monotonic()
    if not sys.stdout.isatty():
        last = started
        console.print(f"  ..  {title}, about {seconds:.0f} s")

        def say(line: dict[str, Any]) -> None:
            nonlocal last
            if time.monotonic() - last >= QUIET_EVERY_S:
                last = time.monotonic()
                console.print(f"      {last - started:.0f} s: {format_current(line)}")

        yield say
        return
    columns = (
        TextColumn("  ..  {task.description}"),
        BarColumn(24),
        TimeRemainingColumn(),
        TextColumn("{task.fields[now]}"),
    )
    with Progress(*columns, console=console, transient=True) as bars:
        bar = bars.add_task(title, total=seconds, now="")

        def show(line: dict[str, Any]) -> None:
            bars.update(bar, completed=min(seconds, time.monotonic() - started), now=format_current(line))

        yield show


def format_current(line: dict[str, Any]) -> str:
    text = f"{line['under_way']} in progress, {line['rps']:.1f} RPS, p95 {line['p95_s']:.2f} s"
    if line["failed"]:
        text += f", failing: {next(iter(line['errors']), '')}"
    return text


def stepwise(steps: Sequence[T], name: Callable[[T], str]) -> Iterator[T]:
    """Yields each step, with a progress bar on standard error that shows the name of the current step."""
    columns = (TextColumn("{task.description}"), BarColumn(24), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True, highlight=False)) as bars:
        bar = bars.add_task("", total=len(steps))
        for step in steps:
            bars.update(bar, description=name(step))
            yield step
            bars.advance(bar)


TEXTFILE = ROOT / "monitoring/textfile/loadtest.prom"
TEXTFILE_FORMAT = """\
# HELP manyeyes_loadtest_generator_cpu_share Fraction of a core that the busiest process of the load generator uses.
# TYPE manyeyes_loadtest_generator_cpu_share gauge
manyeyes_loadtest_generator_cpu_share {cpu:.3f}
# HELP manyeyes_loadtest_limit 1 while the load generator is the bottleneck of the run.
# TYPE manyeyes_loadtest_limit gauge
manyeyes_loadtest_limit {limit:d}
"""


@contextlib.contextmanager
def publish_textfile(watch: Watch, file: Path = TEXTFILE) -> Iterator[Watch]:
    """Yields a function that calls `watch` and writes each line to a file for node-exporter's textfile collector.

    Write errors are ignored, because other hosts do not have this folder.
    """

    def both(line: dict[str, Any]) -> None:
        watch(line)
        with contextlib.suppress(OSError):
            fresh = file.with_suffix(".new")
            fresh.write_text(TEXTFILE_FORMAT.format(cpu=line["cpu"], limit=line["cpu"] > LIMIT_CPU), encoding="utf-8")
            fresh.chmod(0o644)  # node-exporter runs as another user
            fresh.replace(file)

    try:
        yield both
    finally:
        with contextlib.suppress(OSError):
            file.unlink(missing_ok=True)
