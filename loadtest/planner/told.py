"""What a long run tells the terminal: one line that moves, and nothing but the result where nobody looks."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table as Shown

from loadtest.planner.figures import Table
from loadtest.planner.search import Say
from loadtest.planner.simulation import Progress as Told

console = Console(stderr=True)


@contextmanager
def telling() -> Iterator[Say]:
    """A bar for the simulation under way."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bars:
        task = bars.add_task("an idle engine", total=1.0)

        def say(what: str) -> Told:
            bars.update(task, description=what, completed=0.0)
            return lambda share: bars.update(task, completed=share)

        yield say


def show(table: Table) -> None:
    """On standard output."""
    shown = Shown(title=table.title, title_justify="left")
    for number, name in enumerate(table.head):
        shown.add_column(name, justify="left" if number == 0 else "right")
    for row in table.rows:
        shown.add_row(*row)
    Console().print(shown)
