"""Compares the balancing policies with the same users on thousands of engines; each policy runs in a separate process."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import replace
from multiprocessing import get_context
from typing import Any

from loadtest.statistics import percentile
from manyeyes.planner.report import ReportTable, TextRow, seconds
from manyeyes.planner.simulation import MeasuredSpan, Simulation
from manyeyes.planner.workload import PlanRequest, SimulationResult

POLL_INTERVAL_S = 0.5
EXIT_TIMEOUT_S = 10.0  # after Ctrl-C; a simulation that is creating its engines needs some seconds to react

ROW_NAMES = (
    "answered/s",
    "answered",
    "P50",
    "P95",
    "P99",
    "first token P50",
    "first token P95",
    "cached prompt tokens",
    "answers per engine",
    "simulated in, CPU",
)


def compare(
    request: PlanRequest,
    engines: int,
    span: MeasuredSpan,
    names: Sequence[str],
    processes: int,
    on_progress: Callable[[str, float], None],
) -> Iterator[tuple[str, SimulationResult]]:
    """Yields the result of each policy when it is finished. `on_progress` is called with the progress of each policy.

    On Ctrl-C yields the results so far of the running simulations, marked partial, and raises KeyboardInterrupt.
    """
    context = get_context("spawn")
    shares = context.Array("d", len(names), lock=False)
    with ProcessPoolExecutor(processes, context, _set_shares, (shares,)) as pool:
        waiting = {
            pool.submit(simulate, replace(request, policy=name), engines, span, number): name
            for number, name in enumerate(names)
        }
        try:
            while waiting:
                done, _ = wait(waiting, POLL_INTERVAL_S, FIRST_COMPLETED)
                for name, share in zip(names, shares, strict=True):
                    on_progress(name, share)
                for future in done:
                    yield waiting.pop(future), future.result()
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            # The terminal has sent SIGINT to the other processes, too.
            running = [future for future in waiting if not future.cancelled()]
            for future in wait(running, EXIT_TIMEOUT_S).done:
                if future.exception() is None:
                    yield waiting[future], future.result()
            raise


_shares: Any = ()


def _set_shares(shares: Any) -> None:
    """Sets, in each process, the array for its progress."""
    global _shares
    _shares = shares


def simulate(request: PlanRequest, engines: int, span: MeasuredSpan, number: int) -> SimulationResult:
    def progress(share: float) -> None:
        _shares[number] = share

    outcome = Simulation(request, engines, span).run(progress)
    _shares[number] = 1.0
    return outcome


def table(request: PlanRequest, engines: int, results: Sequence[tuple[str, SimulationResult]]) -> ReportTable:
    """A table with a column for each policy, in the order of the command line."""
    title = f"Policies on {engines} engines at {request.rps:g} requests/s"
    names = [name + (", interrupted" if outcome.partial else "") for name, outcome in results]
    columns = [_column(outcome) for _, outcome in results]
    return ReportTable(
        title, ("", *names), [(row_name, *row) for row_name, *row in zip(ROW_NAMES, *columns, strict=True)]
    )


def _column(outcome: SimulationResult) -> TextRow:
    total = [seconds(percentile(outcome.total_s, share)) for share in (0.5, 0.95, 0.99)]
    first = [seconds(percentile(outcome.first_s, share)) for share in (0.5, 0.95)]
    return (
        f"{outcome.rps:.1f}" + ("" if outcome.keeps_up else ", falls behind"),
        f"{outcome.goodput:.2%}",
        *total,
        *first,
        f"{outcome.cached_share:.0%}",
        f"{outcome.min_per_engine} - {outcome.max_per_engine}",
        f"{outcome.cpu_s:.0f} s",
    )
