"""What a long run tells the terminal: one line that moves, and nothing but the result where nobody looks."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table as Shown

from manyeyes.planner.report_rows import Table
from manyeyes.planner.search import Say
from manyeyes.planner.simulation import Progress as Told

console = Console(stderr=True)
COLUMNS = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"), TimeElapsedColumn())


@contextmanager
def telling() -> Iterator[Say]:
    """A bar for the simulation under way."""
    with Progress(*COLUMNS, console=console, transient=True) as bars:
        task = bars.add_task("an idle engine", total=1.0)

        def say(what: str) -> Told:
            bars.update(task, description=what, completed=0.0)
            return lambda share: bars.update(task, completed=share)

        yield say


@contextmanager
def telling_of(names: Sequence[str]) -> Iterator[Callable[[str, float], None]]:
    """A bar for each of several things under way; yields what is told how far one is."""
    with Progress(*COLUMNS, console=console, transient=True) as bars:
        tasks = {name: bars.add_task(name, total=1.0) for name in names}
        yield lambda name, share: bars.update(tasks[name], completed=share)


def show(table: Table) -> None:
    """On standard output."""
    shown = Shown(title=table.title, title_justify="left")
    for number, name in enumerate(table.head):
        shown.add_column(name, justify="left" if number == 0 else "right")
    for row in table.rows:
        shown.add_row(*row)
    Console().print(shown)
