"""The report as one self-contained page: no script, nothing fetched, light and dark, narrow and wide. Pure."""

import html
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from manyeyes.charts.svg import STYLE
from manyeyes.monitoring.prometheus_client import TimeSeries
from manyeyes.monitoring.report import wording
from manyeyes.monitoring.report.queries import ReportData
from manyeyes.monitoring.report.time_chart import RenderedChart, draw_time_chart

MORE_STYLE = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
EVENTS_SHOWN = 60
Events = Sequence[tuple[datetime, str]]


def render_report(about: ReportData, cluster: str, events: Events, notices: Sequence[str], command: str) -> str:
    """`notices`: what is to be known before the figures, such as engines that are emulated; `events`: newest first."""
    emulated = any("emulated" in notice for notice in notices)
    badge = '<span class="badge">emulated</span>' if emulated else ""
    headline, good = wording.verdict(about)
    mood = {True: "good", False: "bad", None: ""}[good]
    cards = "".join(
        f'<div class="card"><b>{html.escape(figure)}</b><span>{html.escape(what)}</span></div>'
        for figure, what in wording.cards(about)
    )
    notes = "".join(f'<p class="emulated">{html.escape(line)}</p>' for line in notices)
    return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(cluster)}: {html.escape(headline)}</title>
<style>{STYLE}{MORE_STYLE}</style>
<main>
<header><p class="eyebrow">{html.escape(cluster)} · {html.escape(wording.period(about))} {badge}</p><h1 class="{mood}">{html.escape(headline)}</h1></header>
{notes}
<section class="cards">{cards}</section>
<h2>What was promised, what was kept</h2>
<div class="wide">{_table(about)}</div>
<h2>Over time</h2>
<p class="source">{_legend(about)} Beside each name is its last value.</p>
<section class="charts">{_charts(about, emulated)}</section>
<h2>Who did the work</h2>
<div class="wide">{_engines(about)}</div>
<h2>Alerts that fired</h2>
{_alerts(about)}
<h2>What happened</h2>
{_events(about, events)}
<footer>Made with <code>{html.escape(command)}</code> from the cluster's Prometheus. Table: over the whole time. Charts: rates over one minute, shares and percentiles over five.</footer>
</main>
</html>
"""


def _table(about: ReportData) -> str:
    heads = "".join(f"<th>{title}</th>" for title in wording.COLUMNS)
    body = "".join(
        f"<tr><th>{html.escape(pool.pool)}</th>"
        + "".join(
            f'<td class="{kind}">{html.escape(figure)}{f"<small>{html.escape(note)}</small>" if note else ""}</td>'
            for figure, note, kind in wording.row(pool)
        )
        + "</tr>"
        for pool in about.pools
    )
    return f"<table><thead><tr><th></th>{heads}</tr></thead><tbody>{body}</tbody></table>"


def _legend(about: ReportData) -> str:
    if not about.marks:
        return "Red spans are times in which an alert fired."
    marks = sorted(about.marks, key=lambda one: one.start_s)
    told = "; ".join(f"{html.escape(one.text)} ({_time(one.start_s)[:5]})" for one in marks)
    return f"Blue spans are marks: {told}. Red ones are alerts."


def _charts(about: ReportData, emulated: bool) -> str:
    several = len(about.pools) > 1

    def pools(name: str, word: str = "") -> list[RenderedChart]:
        return [_figure(line, word, several) for line in about.lines[name]]

    def draw(
        title: str,
        unit: str,
        lines: Sequence[RenderedChart],
        most: float | None = None,
        objectives: Sequence[float] = (),
    ) -> str:
        return draw_time_chart(about, title, unit, lines, most, objectives, emulated)

    objectives = [pool.objective_s for pool in about.pools if pool.objective_s]
    made = (
        ("Requests", "A second, by pool.", draw("Requests", "/s", pools("requests"))),
        (
            "Whole answers, P95",
            "Nineteen of twenty were complete within this time.",
            draw("Whole answers, P95", "s", pools("p95"), objectives=objectives),
        ),
        (
            "First token, P95",
            "The wait in the queue, the picture and the prompt.",
            draw("First token, P95", "s", pools("first_token")),
        ),
        (
            "Errors",
            "Share of requests that failed (5xx), in per cent.",
            draw("Errors", "%", [_percent(line) for line in pools("errors")]),
        ),
        (
            "Requests of each engine",
            "A second. Lines of one pool lie together where the load is even.",
            draw("Requests of each engine", "/s", [_engine(line) for line in about.lines["engines"]]),
        ),
        (
            "Waiting, and hidden",
            "In the engines' queues, and in none: pictures that the CPU prepares.",
            draw("Waiting and hidden", "requests", pools("waiting", "waiting") + pools("hidden", "hidden")),
        ),
        (
            "From caches",
            "Prompt tokens and pictures that engines still had, in per cent.",
            draw(
                "From caches",
                "%",
                [_percent(line) for line in pools("prefix", "tokens") + pools("pictures", "pictures")],
                most=100,
            ),
        ),
        (
            "KV cache",
            "Taken by running requests, in per cent. Above 90 the next ones wait.",
            draw("KV cache", "%", [_percent(_engine(line)) for line in about.lines["kv"]], most=100),
        ),
        ("Tokens written", "A second: the work that is done.", draw("Tokens written", "tokens/s", pools("tokens"))),
        ("Engines up", "That get new requests.", draw("Engines up", "engines", pools("up"))),
    )
    return "".join(
        f"<figure><figcaption><b>{name}</b> {html.escape(text)}</figcaption>{drawn or EMPTY}</figure>"
        for name, text, drawn in made
    )


EMPTY = '<p class="empty">Nothing to draw: nobody asked, or Prometheus has no samples of this time.</p>'


def _figure(line: TimeSeries, word: str, several: bool) -> RenderedChart:
    pool = line.labels.get("pool", "")
    return RenderedChart(" ".join(part for part in (pool if several or not word else "", word) if part), line.points)


def _engine(line: TimeSeries) -> RenderedChart:
    return RenderedChart(line.labels.get("engine", ""), line.points)


def _percent(line: RenderedChart) -> RenderedChart:
    return RenderedChart(line.name, tuple((at, 100 * value) for at, value in line.points))


def _engines(about: ReportData) -> str:
    whole: dict[str, float] = {}
    for pool, _, requests in about.answers:
        whole[pool] = whole.get(pool, 0.0) + requests
    rows = "".join(
        f"<tr><th>{html.escape(engine)}<small>{html.escape(pool)}</small></th><td>{wording.format_count(requests)}</td>"
        f"<td>{wording.format_percent(share) if whole[pool] else '–'}</td>"
        f'<td class="bar-cell"><span class="share-bar" style="width:{100 * share:.1f}%"></span></td></tr>'
        for pool, engine, requests in about.answers
        for share in [requests / whole[pool] if whole[pool] else 0.0]
    )
    return f'<table class="engines"><thead><tr><th>engine</th><th>requests</th><th>of its pool</th><th></th></tr></thead><tbody>{rows}</tbody></table>'


def _alerts(about: ReportData) -> str:
    if not about.alerts:
        return '<p class="source">None.</p>'
    rows = "".join(
        f"<tr><th>{html.escape(one.text)}<small>{html.escape(one.note)}</small></th><td>{_time(one.start_s)}</td>"
        f"<td>{'still' if about.end_s - one.end_s < 3 * about.step_s else wording.format_duration(one.end_s - one.start_s)}</td></tr>"
        for one in about.alerts
    )
    return f'<div class="wide"><table><thead><tr><th></th><th>from</th><th>lasted</th></tr></thead><tbody>{rows}</tbody></table></div>'


def _events(about: ReportData, events: Events) -> str:
    """As the controller tells them: it keeps the last 500, and none over its own restart."""
    inside = [(at, text) for at, text in events if about.start_s <= at.timestamp() <= about.end_s]
    if not inside:
        return '<p class="source">Nothing that the controller still knows of.</p>'
    rows = "".join(
        f"<li><time>{_time(at.timestamp())}</time>{html.escape(text)}</li>" for at, text in inside[:EVENTS_SHOWN]
    )
    more = f"<li>and {len(inside) - EVENTS_SHOWN} before</li>" if len(inside) > EVENTS_SHOWN else ""
    return f'<ul class="events">{rows}{more}</ul>'


def _time(at_s: float) -> str:
    return f"{datetime.fromtimestamp(at_s).astimezone():%H:%M:%S}"
