"""Progress of a run: a bar on the terminal, a line every so often without one, and a file for Prometheus' node-exporter."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from loadtest.host_info import ROOT
from loadtest.run import LIMIT_CPU, Watch

console = Console(highlight=False, soft_wrap=True)
QUIET_EVERY_S = 15.0


@contextlib.contextmanager
def progress(title: str, seconds: float) -> Iterator[Callable[[dict[str, Any]], None]]:
    """`seconds` is how long it should take; yields what is to be called with each line that Locust says."""
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
    """What Locust's line says, in a few words."""
    text = f"{line['under_way']} under way, {line['rps']:.1f} RPS, p95 {line['p95_s']:.2f} s"
    if line["failed"]:
        text += f", failing: {next(iter(line['errors']), '')}"
    return text


TEXTFILE = ROOT / "monitoring/textfile/loadtest.prom"
TEXTFILE_FORMAT = """\
# HELP manyeyes_loadtest_generator_cpu_share Share of a core that the busiest process of the load generator takes.
# TYPE manyeyes_loadtest_generator_cpu_share gauge
manyeyes_loadtest_generator_cpu_share {cpu:.3f}
# HELP manyeyes_loadtest_limit 1 while that is so much that the run measures its generator.
# TYPE manyeyes_loadtest_limit gauge
manyeyes_loadtest_limit {limit:d}
"""


@contextlib.contextmanager
def publish_textfile(watch: Watch, file: Path = TEXTFILE) -> Iterator[Watch]:
    """`watch`, with each line also told to Prometheus. Never a reason to fail: elsewhere there is no such folder."""

    def both(line: dict[str, Any]) -> None:
        watch(line)
        with contextlib.suppress(OSError):
            fresh = file.with_suffix(".new")
            fresh.write_text(TEXTFILE_FORMAT.format(cpu=line["cpu"], limit=line["cpu"] > LIMIT_CPU), encoding="utf-8")
            fresh.chmod(0o644)  # node-exporter is another user
            fresh.replace(file)

    try:
        yield both
    finally:
        with contextlib.suppress(OSError):
            file.unlink(missing_ok=True)
