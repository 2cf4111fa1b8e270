"""The proof as one self-contained page: no script, nothing fetched, light and dark, narrow and wide. Pure."""

import html
from typing import Any

from loadtest.scaling_report import charts, published_baseline, wording
from loadtest.scaling_report.results import Results
from loadtest.scaling_report.table import rows
from manyeyes.charts.style import STYLE


def page(about: dict[str, Any], results: Results, slo: str, slo_s: float, trouble: str, missed: list[str]) -> str:
    emulated = bool(about["kind"]["emulated"])
    title = wording.title(about, results)
    badge = '<span class="badge">emulated</span>' if emulated else ""
    note = f'<p class="emulated">{html.escape(wording.EMULATED)}</p>' if emulated else ""
    alarms = "".join(
        f'<p class="alarm">{html.escape(line)}</p>' for line in [*wording.warnings(about, results, trouble), *missed]
    )
    cards = "".join(
        f'<div class="card"><b>{html.escape(figure)}</b><span>{html.escape(what)}</span></div>'
        for figure, what in wording.headline(results, emulated)
    )
    return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Scaling proof: {html.escape(title)}{" (emulated)" if emulated else ""}</title>
<style>{STYLE}</style>
<main>
<header><p class="eyebrow">ManyEyes · scaling proof {badge}</p><h1>{html.escape(title)}</h1></header>
{note}{alarms}
<section class="cards">{cards}</section>
<section class="charts">{_charts(results, slo_s, emulated)}</section>
<h2>All figures{" <em>emulated</em>" if emulated else ""}</h2>
<div class="wide">{_table(results, slo)}</div>
{_reference(results, emulated)}
<h2>How it was measured</h2>
<ul>{"".join(f"<li>{html.escape(line)}</li>" for line in wording.how(about, results))}</ul>
<footer>{html.escape(wording.machine(about))}<br><code>{html.escape(about["machine"]["command"])}</code></footer>
</main>
</html>
"""


def _charts(results: Results, slo_s: float, emulated: bool) -> str:
    made = (
        (
            "What more engines do",
            "Requests a second with all engines busy; the line is one engine's, times their number. Dots are repeats.",
            charts.throughput(results, emulated),
        ),
        (
            "What the same people feel",
            "Time to the whole answer for as many people as one engine had.",
            charts.latency(results, emulated),
        ),
        (
            "Where each of them bends",
            "People arrive at random. Filled: the objective was kept; rings: missed. On top: engines, and the most that kept it.",
            charts.knees(results, slo_s, emulated),
        ),
        (
            "Who did the work",
            "Share of the answers by engine, for each number of engines.",
            charts.shares(results, emulated),
        ),
    )
    return "".join(
        f"<figure><figcaption><b>{name}</b> {html.escape(text)}</figcaption>{svg}</figure>"
        for name, text, svg in made
        if svg
    )


def _table(results: Results, slo: str) -> str:
    heads = "".join(f"<th>{html.escape(text)}</th>" for text in [*wording.counts_line(results), "change"])
    body = "".join(
        f"<tr><th>{html.escape(row.what)}<small>{html.escape(row.note)}</small></th>"
        + "".join(f"<td>{_cell(text)}</td>" for text in row.cells)
        + f"<td>{html.escape(row.change)}</td></tr>"
        for row in rows(results, slo)
    )
    return f"<table><thead><tr><th></th>{heads}</tr></thead><tbody>{body}</tbody></table>"


def _cell(text: str) -> str:
    """The range of the repeats in small under the median."""
    middle, bracket, spread = text.partition(" (")
    return html.escape(middle) + (f"<small>{html.escape(spread.rstrip(')'))}</small>" if bracket else "")


def _reference(results: Results, emulated: bool) -> str:
    body = "".join(
        f"<tr><th>{html.escape(what)}</th><td class='theirs'>{html.escape(there)}</td><td>{html.escape(here)}</td></tr>"
        for what, there, here in wording.beside(results, emulated)
    )
    here = "measured here" + (", emulated" if emulated else "")
    return f"""<h2>Beside a published case</h2>
<div class="wide"><table class="beside"><thead><tr><th></th><th class="theirs">published, not measured here</th><th>{here}</th></tr></thead>
<tbody>{body}</tbody></table></div>
<p class="source">Published: {html.escape(published_baseline.SETUP)}. <a href="{published_baseline.SOURCE}" title="{published_baseline.ORIGINAL}">{html.escape(published_baseline.TITLE)}</a>, {html.escape(published_baseline.SEEN)}.
{html.escape(published_baseline.CAVEATS)}</p>"""
