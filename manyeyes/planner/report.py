"""Shows a plan on the terminal, as Markdown, and as a self-contained HTML page."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table as RichTable

from loadtest.statistics import percentile
from manyeyes.charts.svg import LEFT, Plot
from manyeyes.charts.templates import markdown_table, render_page
from manyeyes.planner.search import Announce, CapacityPlan, meets_request
from manyeyes.planner.simulation import Progress as ProgressCallback
from manyeyes.planner.workload import STAGES, PlanRequest, SimulationResult, lost_time_by_resource

TextRow = tuple[str, ...]


@dataclass(frozen=True)
class ReportTable:
    title: str
    head: TextRow
    rows: list[TextRow]


def request_line(request: PlanRequest) -> str:
    work = request.work
    images = (
        f"{work.images} image{'s' * (work.images != 1)} of {work.width} x {work.height}" if work.images else "no image"
    )
    turns = f", chats of {work.turns} turns, {work.think_s:g} s apart" if work.turns > 1 else ""
    first = f", first token within {request.first_p95_s:g} s" if request.first_p95_s else ""
    answer = f"{work.output_tokens * (1 - work.vary):.0f} to {work.output_tokens * (1 + work.vary):.0f}"
    return (
        f"{request.rps:g} requests/s: {images}, {work.words} words, answers of {answer} tokens{turns}; "
        f"P95 within {request.p95_s:g} s{first}, {request.goodput:.1%} answered; {request.policy} balancing"
    )


def caveat(request: PlanRequest) -> str:
    """States that the numbers are estimates, and of which GPU and model."""
    return (
        f"Estimate: simulated with the emulator's physics of one {request.gpu_spec.profile.gpu} with {request.gpu_spec.profile.model}. "
        "No GPU was used; `manyeyes calibrate` measures yours."
    )


def verdict(plan: CapacityPlan) -> str:
    outcome = plan.outcome
    if plan.partial or outcome is None:
        return f"Interrupted: the last simulation had {plan.engines} GPUs, which may not be the smallest sufficient number."
    is_met = meets_request(plan.request, outcome)
    text = f"{gpus(plan.engines)} {'are' if plan.engines > 1 else 'is'} {'enough' if is_met else 'not enough'}: {speed(outcome)}."
    if plan.limit_rps:
        text += (
            f" The limit is {plan.limit_rps:.3g} requests/s ({plan.limit_rps / plan.request.rps:.2f} times the requested rate); "
            f"beyond it most time is lost to {plan.limit}."
        )
    return text


def tables(plan: CapacityPlan, price: float | None) -> list[ReportTable]:
    """Returns all tables of the plan. `price`: cost of one GPU for an hour."""
    report_tables = []
    if plan.outcome is not None:
        report_tables.append(
            ReportTable(f"Results with {gpus(plan.engines)}", ("what", "value"), _outcome(plan, plan.outcome, price))
        )
        report_tables.append(
            ReportTable(
                "Where a request's time goes", ("stage", "idle engine", "this plan"), _stages(plan, plan.outcome)
            )
        )
    if len(plan.tried) > 1:
        rows = [(str(n), *_summary(plan.request, outcome)) for n, outcome in plan.by_engines]
        report_tables.append(
            ReportTable(f"Number of GPUs, at {plan.request.rps:g} requests/s", ("GPUs", *SUMMARY_HEAD), rows)
        )
    if len(plan.rates) > 1:
        rows = [(f"{rps:.3g}", *_summary(plan.request, outcome)) for rps, outcome in sorted(plan.rates.items())]
        report_tables.append(ReportTable(f"Limit of {gpus(plan.engines)}", ("requests/s", *SUMMARY_HEAD), rows))
    return report_tables


SUMMARY_HEAD = ("answered/s", "P95", "first token P95", "answered", "good")


def _summary(request: PlanRequest, outcome: SimulationResult) -> TextRow:
    return (
        f"{outcome.rps:.2f}",
        seconds(percentile(outcome.total_s, 0.95)),
        seconds(percentile(outcome.first_s, 0.95)),
        f"{outcome.goodput:.1%}",
        "yes" if meets_request(request, outcome) else "no" if outcome.keeps_up else "no, falls behind",
    )


def _outcome(plan: CapacityPlan, outcome: SimulationResult, price: float | None) -> list[TextRow]:
    def percentiles(values: "list[float]") -> str:
        return " / ".join(seconds(percentile(values, share)) for share in (0.5, 0.95, 0.99))

    rows: list[TextRow] = [
        ("requests/s answered", f"{outcome.rps:.2f} of {outcome.offered_rps:g} ({outcome.requests} simulated)"),
        ("time to the last token, P50 / P95 / P99", percentiles(list(outcome.total_s))),
        ("time to the first token, P50 / P95 / P99", percentiles(list(outcome.first_s))),
        ("answered; refused with 429; failed", f"{outcome.goodput:.2%}; {outcome.refused}; {outcome.failed}"),
        ("output tokens/s", f"{outcome.tokens / outcome.measured_s:.0f}" if outcome.measured_s else "-"),
        ("preprocessing thread busy", f"{outcome.preprocessing_busy:.0%} of the time"),
        (
            "GPU busy; of that images, prompts",
            f"{outcome.gpu_busy:.0%}; {outcome.encode_share:.0%}, {outcome.prefill_share:.0%}",
        ),
        ("KV cache in use; preemptions", f"{outcome.kv_used:.0%}; {outcome.preempted}"),
        ("prompt tokens from the prefix cache", f"{outcome.cached_share:.0%}"),
    ]
    if plan.limit_rps:
        rows.append(("limit", f"{plan.limit_rps:.3g} requests/s: {plan.limit}"))
    if price is not None and outcome.rps:
        rows += _costs(plan, outcome, price)
    return rows


def _costs(plan: CapacityPlan, outcome: SimulationResult, price: float) -> list[TextRow]:
    per_request = plan.engines * price / 3600 / outcome.rps
    images_per_request = plan.request.work.images / plan.request.work.turns  # new images in each request
    rows: list[TextRow] = [("cost per million requests", f"{1e6 * per_request:,.0f} at {price:g} per GPU and hour")]
    if images_per_request:
        rows.append(("cost per million images", f"{1e6 * per_request / images_per_request:,.0f}"))
    return rows


def _stages(plan: CapacityPlan, outcome: SimulationResult) -> list[TextRow]:
    rows: list[TextRow] = [(name, seconds(plan.idle.stage_s(name)), seconds(outcome.stage_s(name))) for name in STAGES]
    total = sum(outcome.stage_s(name) for name in STAGES)
    rows.append(("mean, all stages", seconds(sum(plan.idle.stage_s(name) for name in STAGES)), seconds(total)))
    rows += [
        (f"lost to {name}", "", seconds(lost_s)) for name, lost_s in lost_time_by_resource(outcome, plan.idle).items()
    ]
    return rows


def gpus(number: int) -> str:
    return f"{number} GPU{'s' * (number != 1)}"


def speed(outcome: SimulationResult) -> str:
    return (
        f"{outcome.rps:.4g} requests/s with a P95 of {seconds(percentile(outcome.total_s, 0.95))}, first token "
        f"{seconds(percentile(outcome.first_s, 0.95))}"
    )


def seconds(value: float) -> str:
    return f"{value:.2f} s" if value >= 0.9995 else f"{1e3 * value:.0f} ms"


def markdown(plan: CapacityPlan, price: float | None, command: str) -> str:
    parts = [f"# How many GPUs\n\n{request_line(plan.request)}.\n\n**{verdict(plan)}**\n\n{caveat(plan.request)}"]
    parts += [f"## {table.title}\n\n{markdown_table(table.head, table.rows)}" for table in tables(plan, price)]
    parts.append(f"Made by `{command}`.")
    return "\n\n".join(part.strip() for part in parts) + "\n"


def html(plan: CapacityPlan, price: float | None, command: str) -> str:
    return render_page(
        Path(__file__).with_name("report.html.j2"),
        request=request_line(plan.request),
        verdict=verdict(plan),
        caveat=caveat(plan.request),
        curve=Markup(curve(plan.rates, plan.request.rps, plan.request.p95_s)) if len(plan.rates) > 2 else None,
        tables=tables(plan, price),
        command=command,
    )


def curve(rates: dict[float, SimulationResult], requested_rps: float, p95_s: float) -> str:
    """Chart of P95 by requests a second; two lines show the requested rate and P95."""
    points = sorted((rps, percentile(outcome.total_s, 0.95)) for rps, outcome in rates.items())
    left, right = min(0.9 * points[0][0], requested_rps), 1.05 * points[-1][0]
    high = 1.15 * max(p95_s, min(max(y for _, y in points), 3 * p95_s))
    plot = Plot(left, right, high, "P95, seconds", "requests a second", "P95 over requests a second")
    plot.line([(left, p95_s), (right, p95_s)], "ideal")
    plot.line([(requested_rps, 0), (requested_rps, high)], "ideal")
    plot.text(LEFT + 4, plot.y(p95_s) - 5, f"requested P95: {p95_s:g} s", "label", "start")
    plot.line(points, "line first")
    for rps, total_s in points:
        plot.dot(rps, total_s, "dot first", title=f"{rps:.3g} a second: {total_s:.2f} s")
    plot.tick(requested_rps, f"{requested_rps:g} requested")
    plot.tick(points[-1][0], f"{points[-1][0]:.3g}")
    return plot.svg(emulated=False)


console = Console(stderr=True)
COLUMNS = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"), TimeElapsedColumn())


@contextmanager
def progress_bar() -> Iterator[Announce]:
    with Progress(*COLUMNS, console=console, transient=True) as bars:
        task = bars.add_task("an idle engine", total=1.0)

        def announce(title: str) -> ProgressCallback:
            bars.update(task, description=title, completed=0.0)
            return lambda share: bars.update(task, completed=share)

        yield announce


@contextmanager
def progress_bars(names: Sequence[str]) -> Iterator[Callable[[str, float], None]]:
    """Shows a progress bar for each name. Yields a function that sets the progress of one of them."""
    with Progress(*COLUMNS, console=console, transient=True) as bars:
        tasks = {name: bars.add_task(name, total=1.0) for name in names}
        yield lambda name, share: bars.update(tasks[name], completed=share)


def print_table(table: ReportTable) -> None:
    rich_table = RichTable(title=table.title, title_justify="left")
    for number, name in enumerate(table.head):
        rich_table.add_column(name, justify="left" if number == 0 else "right")
    for row in table.rows:
        rich_table.add_row(*row)
    Console().print(rich_table)
