"""The same users through every balancing policy, on thousands of engines: each policy in a process of its own."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import replace
from multiprocessing import get_context

from loadtest.percentiles import percentile
from loadtest.planner.ask import Ask
from loadtest.planner.figures import Row, Table, seconds
from loadtest.planner.outcome import Outcome
from loadtest.planner.simulation import Simulation, Span

HEAD = (
    "policy",
    "answered/s",
    "answered",
    "P50",
    "P95",
    "P99",
    "first token P50",
    "first token P95",
    "cached prompt tokens",
    "requests per engine, fewest - most",
    "simulated in",
)


def compare(
    ask: Ask, engines: int, span: Span, names: Sequence[str], processes: int, tell: Callable[[str], None]
) -> Iterator[tuple[str, Outcome]]:
    """Yields each policy's outcome as it is there. `tell` hears which policies are still under way."""
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        waiting = {pool.submit(simulate, replace(ask, policy=name), engines, span): name for name in names}
        try:
            while waiting:
                tell(", ".join(waiting.values()))
                done, _ = wait(waiting, return_when=FIRST_COMPLETED)
                for future in done:
                    yield waiting.pop(future), _result(future)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def simulate(ask: Ask, engines: int, span: Span) -> Outcome:
    """One policy; ends with what is known at Ctrl-C."""
    return Simulation(ask, engines, span).run()


def table(ask: Ask, engines: int, found: Sequence[tuple[str, Outcome]]) -> Table:
    """A row for each policy, in the order they were asked for."""
    title = f"Policies on {engines} engines at {ask.rps:g} requests/s"
    return Table(title, HEAD, [_row(name, outcome) for name, outcome in found])


def _result(future: "Future[Outcome]") -> Outcome:
    outcome = future.result()
    if outcome.partial:
        raise KeyboardInterrupt
    return outcome


def _row(name: str, outcome: Outcome) -> Row:
    total = [seconds(percentile(outcome.total_s, share)) for share in (0.5, 0.95, 0.99)]
    first = [seconds(percentile(outcome.first_s, share)) for share in (0.5, 0.95)]
    return (
        name,
        f"{outcome.rps:.1f}" + ("" if outcome.keeps_up else ", falls behind"),
        f"{outcome.goodput:.2%}",
        *total,
        *first,
        f"{outcome.cached_share:.0%}",
        f"{outcome.fewest_per_engine} - {outcome.most_per_engine}",
        f"{outcome.wall_s:.0f} s",
    )
