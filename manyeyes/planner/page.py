"""A plan as Markdown, and as one HTML page that needs nothing beside it."""

from collections.abc import Sequence
from html import escape

from loadtest.statistics import percentile
from manyeyes.planner.report_rows import Table, asked, caveat, tables, verdict
from manyeyes.planner.result import Outcome
from manyeyes.planner.search import Plan

STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: .5rem 0 2rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid #8884; }
.answer { font-size: 1.25rem; } .caveat { opacity: .75; } svg { max-width: 100%; height: auto; }
""".strip()


def markdown(plan: Plan, price: float | None, command: str) -> str:
    """The whole page."""
    parts = [f"# How many GPUs\n\n{asked(plan.ask)}.\n\n**{verdict(plan)}**\n\n{caveat(plan.ask)}"]
    parts += [f"## {table.title}\n\n{_markdown(table)}" for table in tables(plan, price)]
    parts.append(f"Made by `{command}`.")
    return "\n\n".join(parts) + "\n"


def html(plan: Plan, price: float | None, command: str) -> str:
    """The whole page, with a picture of where it breaks."""
    parts = [
        f"<h1>How many GPUs</h1><p>{escape(asked(plan.ask))}.</p><p class=answer>{escape(verdict(plan))}</p>",
        f"<p class=caveat>{escape(caveat(plan.ask))}</p>",
    ]
    if len(plan.rates) > 2:
        parts.append(curve(plan.rates, plan.ask.rps, plan.ask.p95_s))
    parts += [f"<h2>{escape(table.title)}</h2>{_html(table)}" for table in tables(plan, price)]
    parts.append(f"<p class=caveat>Made by <code>{escape(command)}</code>.</p>")
    body = "\n".join(parts)
    return f"<!doctype html>\n<html lang=en><meta charset=utf-8><title>How many GPUs</title><style>{STYLE}</style>\n{body}\n"


def _markdown(table: Table) -> str:
    lines = [table.head, ("---",) * len(table.head), *table.rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _html(table: Table) -> str:
    head = "".join(f"<th>{escape(cell)}" for cell in table.head)
    rows = "".join("<tr>" + "".join(f"<td>{escape(cell)}" for cell in row) for row in table.rows)
    return f"<table><tr>{head}{rows}</table>"


def curve(rates: dict[float, Outcome], asked_rps: float, p95_s: float) -> str:
    """P95 over requests a second, with what was asked for as two lines."""
    points = sorted((rps, percentile(outcome.total_s, 0.95)) for rps, outcome in rates.items())
    wide, high, left, below = 640, 260, 60, 40
    most_x = 1.05 * points[-1][0]
    least_x = min(0.9 * points[0][0], asked_rps)
    most_y = 1.15 * max(p95_s, min(max(y for _, y in points), 3 * p95_s))

    def place(x: float, y: float) -> tuple[float, float]:
        across = left + (x - least_x) / (most_x - least_x) * (wide - left - 10)
        return round(across, 1), round(10 + (1 - min(y, most_y) / most_y) * (high - below - 10), 1)

    line = " ".join(f"{x},{y}" for x, y in (place(*point) for point in points))
    dots = "".join(f'<circle cx="{x}" cy="{y}" r="3.5"/>' for x, y in (place(*point) for point in points))
    _, limit = place(least_x, p95_s)
    here, _ = place(asked_rps, 0)
    bottom = high - below
    labels = _labels(
        [
            (left + 4, limit - 5, f"P95 asked for: {p95_s:g} s", "start"),
            (here, high - 22, f"{asked_rps:g}", "middle"),
            (place(points[-1][0], 0)[0], high - 22, f"{points[-1][0]:.3g}", "end"),
            ((left + wide) / 2, high - 4, "requests a second", "middle"),
            (left - 8, bottom, "0", "end"),
            (left - 8, limit + 4, f"{p95_s:g} s", "end"),
        ]
    )
    return (
        f'<svg viewBox="0 0 {wide} {high}" width="{wide}" role="img" aria-label="P95 over requests a second">'
        f'<g stroke="currentColor" fill="none"><path d="M{left} 10V{bottom}H{wide}" opacity=".5"/>'
        f'<path d="M{left} {limit}H{wide}M{here} 10V{bottom}" stroke-dasharray="4 4" opacity=".6"/>'
        f'<polyline points="{line}" stroke="#2a78d6" stroke-width="2"/></g><g fill="#2a78d6">{dots}</g>{labels}</svg>'
    )


def _labels(texts: Sequence[tuple[float, float, str, str]]) -> str:
    return "".join(
        f'<text x="{x}" y="{y}" font-size="12" fill="currentColor" text-anchor="{anchor}">{escape(text)}</text>'
        for x, y, text, anchor in texts
    )
