"""Progress on the terminal: a bar with what is seen just now; without a terminal a line every so often."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

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
                console.print(f"      {last - started:.0f} s: {now(line)}")

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
            bars.update(bar, completed=min(seconds, time.monotonic() - started), now=now(line))

        yield show


def now(line: dict[str, Any]) -> str:
    """What Locust's line says, in a few words."""
    text = f"{line['under_way']} under way, {line['rps']:.1f} RPS, p95 {line['p95_s']:.2f} s"
    if line["failed"]:
        text += f", failing: {next(iter(line['errors']), '')}"
    return text
