"""Renders the report as one self-contained HTML page without scripts or downloads, for light and dark mode and any
width. Pure."""

import html
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from manyeyes.charts.svg import BOTTOM, HEIGHT, LEFT, RIGHT, STYLE, TOP, WIDTH, Plot, round_ticks
from manyeyes.monitoring.prometheus_client import TimeSeries
from manyeyes.monitoring.report import figures
from manyeyes.monitoring.report.figures import AlertSpan, ReportData

COLOURS = 8
MAX_LINES = 8
"""More lines cannot be distinguished; only the busiest are drawn."""


@dataclass(frozen=True)
class RenderedChart:
    """One line of a chart."""

    name: str
    points: tuple[tuple[float, float], ...]

    @property
    def peak(self) -> float:
        return max((value for _, value in self.points), default=0.0)


def draw_time_chart(
    about: ReportData,
    title: str,
    unit: str,
    lines: Sequence[RenderedChart],
    most: float | None = None,
    objectives: Sequence[float] = (),
    emulated: bool = False,
) -> str:
    """The SVG and its legend; empty if there is nothing to draw."""
    shown = sorted(sorted(lines, key=lambda line: -line.peak)[:MAX_LINES], key=lambda line: lines.index(line))
    if not any(line.points for line in shown):
        return ""
    reached = max(line.peak for line in shown)
    near = [one for one in objectives if one <= 3 * reached]
    high = most or _round_up(max([reached, *near]) * 1.08)
    plot = Plot(about.start_s, about.end_s, high, unit, "", title)
    _behind(plot, about.marks, "mark-span", about)
    _behind(plot, about.alerts, "alert-span", about)
    for objective in sorted(set(near)):
        _objective(plot, objective, unit)
    for number, line in enumerate(shown):
        for piece in pieces(line.points, about.step_s):
            plot.line(piece, f"line c{number % COLOURS}")
    for at, text in clock(about.start_s, about.end_s):
        plot.text(plot.x(at), HEIGHT - BOTTOM + 17, text)
    legend = "".join(
        f'<span class="key"><i class="k{number % COLOURS}"></i>{html.escape(line.name)} <b>{_short(line.points[-1][1])}</b></span>'
        for number, line in enumerate(shown)
        if line.points
    )
    left_out = f'<span class="key">and {len(lines) - len(shown)} more</span>' if len(lines) > len(shown) else ""
    return f'{plot.svg(emulated)}<div class="legend">{legend}{left_out}</div>'


def pieces(points: Sequence[tuple[float, float]], step_s: float) -> list[list[tuple[float, float]]]:
    """The pieces of a line, split where samples are missing."""
    found: list[list[tuple[float, float]]] = []
    for at, value in points:
        if not found or at - found[-1][-1][0] > 2.5 * step_s:
            found.append([])
        found[-1].append((at, value))
    # A single point would be invisible.
    return [piece if len(piece) > 1 else [piece[0], (piece[0][0] + step_s / 2, piece[0][1])] for piece in found]


def _behind(plot: Plot, spans: Sequence[AlertSpan], style: str, about: ReportData) -> None:
    for span in spans:
        left, right = plot.x(max(span.start_s, about.start_s)), plot.x(min(span.end_s, about.end_s))
        plot.parts.append(
            f'<rect x="{left:.1f}" y="{TOP}" width="{max(2.0, right - left):.1f}" height="{HEIGHT - TOP - BOTTOM}" class="{style}">'
            f"<title>{html.escape(span.text)}</title></rect>"
        )


def _objective(plot: Plot, value: float, unit: str) -> None:
    at = plot.y(value)
    plot.parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}" class="slo"/>')
    plot.text(WIDTH - RIGHT, at - 5, f"objective {value:g} {unit}", "label", "end")


def clock(
    start_s: float,
    end_s: float,
    local: Callable[[float], datetime] = lambda at: datetime.fromtimestamp(at).astimezone(),
) -> list[tuple[float, str]]:
    """Four to seven round times for the axis, in the host's time zone; with the day if necessary."""
    span = end_s - start_s
    sizes = (60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400, 172_800)
    step = next((size for size in sizes if span / size <= 6.5), 604_800)
    shift = local(start_s).utcoffset()
    offset = shift.total_seconds() if shift else 0.0
    first = math.ceil((start_s + offset) / step) * step - offset
    form = "%H:%M" if span <= 86_400 else "%a %H:%M" if step < 86_400 else "%d %b"
    times = [first + number * step for number in range(8) if first + number * step <= end_s]
    return [(at, format(local(at), form)) for at in times]


def _round_up(value: float) -> float:
    """Rounds up to the next tick, so that the highest grid line is at the top."""
    if value <= 0:
        return 1.0
    ticks = round_ticks(value)
    step = ticks[1] - ticks[0] if len(ticks) > 1 else value
    return math.ceil(value / step - 1e-9) * step


def _short(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


MORE_STYLE = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
EVENTS_SHOWN = 60
Events = Sequence[tuple[datetime, str]]


def render_report(about: ReportData, cluster: str, events: Events, notices: Sequence[str], command: str) -> str:
    """`notices`: remarks shown above the figures, for example that engines are emulated; `events`: newest first."""
    emulated = any("emulated" in notice for notice in notices)
    badge = '<span class="badge">emulated</span>' if emulated else ""
    headline, good = figures.verdict(about)
    mood = {True: "good", False: "bad", None: ""}[good]
    cards = "".join(
        f'<div class="card"><b>{html.escape(figure)}</b><span>{html.escape(what)}</span></div>'
        for figure, what in figures.cards(about)
    )
    notes = "".join(f'<p class="emulated">{html.escape(line)}</p>' for line in notices)
    return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(cluster)}: {html.escape(headline)}</title>
<style>{STYLE}{MORE_STYLE}</style>
<main>
<header><p class="eyebrow">{html.escape(cluster)} · {html.escape(figures.period(about))} {badge}</p><h1 class="{mood}">{html.escape(headline)}</h1></header>
{notes}
<section class="cards">{cards}</section>
<h2>Results and objectives</h2>
<div class="wide">{_table(about)}</div>
<h2>Over time</h2>
<p class="source">{_legend(about)} The number next to each name is its last value.</p>
<section class="charts">{_charts(about, emulated)}</section>
<h2>Requests by engine</h2>
<div class="wide">{_engines(about)}</div>
<h2>Alerts that fired</h2>
{_alerts(about)}
<h2>Events</h2>
{_events(about, events)}
<footer>Made with <code>{html.escape(command)}</code> from the cluster's Prometheus. The table covers the whole time. In the charts, rates are over one minute, and shares and percentiles over five minutes.</footer>
</main>
</html>
"""


def _table(about: ReportData) -> str:
    heads = "".join(f"<th>{title}</th>" for title in figures.COLUMNS)
    body = "".join(
        f"<tr><th>{html.escape(pool.pool)}</th>"
        + "".join(
            f'<td class="{kind}">{html.escape(figure)}{f"<small>{html.escape(note)}</small>" if note else ""}</td>'
            for figure, note, kind in figures.row(pool)
        )
        + "</tr>"
        for pool in about.pools
    )
    return f"<table><thead><tr><th></th>{heads}</tr></thead><tbody>{body}</tbody></table>"


def _legend(about: ReportData) -> str:
    if not about.marks:
        return "Red spans show when an alert fired."
    marks = sorted(about.marks, key=lambda one: one.start_s)
    listed = "; ".join(f"{html.escape(one.text)} ({_time(one.start_s)[:5]})" for one in marks)
    return f"Blue spans are marks: {listed}. Red spans are alerts."


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
        ("Requests", "Per second, by pool.", draw("Requests", "/s", pools("requests"))),
        (
            "Complete answers, P95",
            "19 of 20 answers were complete within this time.",
            draw("Complete answers, P95", "s", pools("p95"), objectives=objectives),
        ),
        (
            "First token, P95",
            "Queue, image preprocessing and prefill.",
            draw("First token, P95", "s", pools("first_token")),
        ),
        (
            "Errors",
            "Share of requests that failed (5xx), in percent.",
            draw("Errors", "%", [_percent(line) for line in pools("errors")]),
        ),
        (
            "Requests of each engine",
            "Per second. The lines of one pool are close together if the load is balanced.",
            draw("Requests of each engine", "/s", [_engine(line) for line in about.lines["engines"]]),
        ),
        (
            "Waiting and hidden",
            "Requests in the engines' queues, and requests whose images the CPU preprocesses.",
            draw("Waiting and hidden", "requests", pools("waiting", "waiting") + pools("hidden", "hidden")),
        ),
        (
            "From caches",
            "Prompt tokens and images that engines had cached, in percent.",
            draw(
                "From caches",
                "%",
                [_percent(line) for line in pools("prefix", "tokens") + pools("pictures", "images")],
                most=100,
            ),
        ),
        (
            "KV cache",
            "Used by running requests, in percent. Above 90 the next requests wait.",
            draw("KV cache", "%", [_percent(_engine(line)) for line in about.lines["kv"]], most=100),
        ),
        ("Generated tokens", "Per second: the work done.", draw("Generated tokens", "tokens/s", pools("tokens"))),
        ("Engines up", "Engines that receive new requests.", draw("Engines up", "engines", pools("up"))),
    )
    return "".join(
        f"<figure><figcaption><b>{name}</b> {html.escape(text)}</figcaption>{drawn or EMPTY}</figure>"
        for name, text, drawn in made
    )


EMPTY = '<p class="empty">Nothing to draw: no requests, or Prometheus has no samples of this time.</p>'


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
        f"<tr><th>{html.escape(engine)}<small>{html.escape(pool)}</small></th><td>{figures.format_count(requests)}</td>"
        f"<td>{figures.format_percent(share) if whole[pool] else '–'}</td>"
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
        f"<td>{'still' if about.end_s - one.end_s < 3 * about.step_s else figures.format_duration(one.end_s - one.start_s)}</td></tr>"
        for one in about.alerts
    )
    return f'<div class="wide"><table><thead><tr><th></th><th>from</th><th>lasted</th></tr></thead><tbody>{rows}</tbody></table></div>'


def _events(about: ReportData, events: Events) -> str:
    """Events of the report's time from the controller, which stores the last 500 and loses them when it restarts."""
    inside = [(at, text) for at, text in events if about.start_s <= at.timestamp() <= about.end_s]
    if not inside:
        return '<p class="source">The controller has no events of this time.</p>'
    rows = "".join(
        f"<li><time>{_time(at.timestamp())}</time>{html.escape(text)}</li>" for at, text in inside[:EVENTS_SHOWN]
    )
    more = f"<li>and {len(inside) - EVENTS_SHOWN} earlier events</li>" if len(inside) > EVENTS_SHOWN else ""
    return f'<ul class="events">{rows}{more}</ul>'


def _time(at_s: float) -> str:
    return f"{datetime.fromtimestamp(at_s).astimezone():%H:%M:%S}"
