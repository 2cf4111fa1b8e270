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
    report_data: ReportData,
    title: str,
    unit: str,
    lines: Sequence[RenderedChart],
    max_value: float | None = None,
    objectives: Sequence[float] = (),
    emulated: bool = False,
) -> str:
    """The SVG and its legend; empty if there is nothing to draw."""
    shown = sorted(sorted(lines, key=lambda line: -line.peak)[:MAX_LINES], key=lambda line: lines.index(line))
    if not any(line.points for line in shown):
        return ""
    peak = max(line.peak for line in shown)
    near_objectives = [objective for objective in objectives if objective <= 3 * peak]
    high = max_value or _round_up(max([peak, *near_objectives]) * 1.08)
    plot = Plot(report_data.start_s, report_data.end_s, high, unit, "", title)
    _draw_spans(plot, report_data.marks, "mark-span", report_data)
    _draw_spans(plot, report_data.alerts, "alert-span", report_data)
    for objective in sorted(set(near_objectives)):
        _draw_objective(plot, objective, unit)
    for number, line in enumerate(shown):
        for piece in pieces(line.points, report_data.step_s):
            plot.line(piece, f"line c{number % COLOURS}")
    for at, text in clock(report_data.start_s, report_data.end_s):
        plot.text(plot.x(at), HEIGHT - BOTTOM + 17, text)
    legend = "".join(
        f'<span class="key"><i class="k{number % COLOURS}"></i>{html.escape(line.name)} <b>{_short(line.points[-1][1])}</b></span>'
        for number, line in enumerate(shown)
        if line.points
    )
    omitted = f'<span class="key">and {len(lines) - len(shown)} more</span>' if len(lines) > len(shown) else ""
    return f'{plot.svg(emulated)}<div class="legend">{legend}{omitted}</div>'


def pieces(points: Sequence[tuple[float, float]], step_s: float) -> list[list[tuple[float, float]]]:
    """The pieces of a line, split where samples are missing."""
    segments: list[list[tuple[float, float]]] = []
    for at, value in points:
        if not segments or at - segments[-1][-1][0] > 2.5 * step_s:
            segments.append([])
        segments[-1].append((at, value))
    # A single point would be invisible.
    return [piece if len(piece) > 1 else [piece[0], (piece[0][0] + step_s / 2, piece[0][1])] for piece in segments]


def _draw_spans(plot: Plot, spans: Sequence[AlertSpan], style: str, report_data: ReportData) -> None:
    for span in spans:
        left_x, right_x = plot.x(max(span.start_s, report_data.start_s)), plot.x(min(span.end_s, report_data.end_s))
        plot.parts.append(
            f'<rect x="{left_x:.1f}" y="{TOP}" width="{max(2.0, right_x - left_x):.1f}" height="{HEIGHT - TOP - BOTTOM}" class="{style}">'
            f"<title>{html.escape(span.text)}</title></rect>"
        )


def _draw_objective(plot: Plot, value: float, unit: str) -> None:
    y = plot.y(value)
    plot.parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" class="slo"/>')
    plot.text(WIDTH - RIGHT, y - 5, f"objective {value:g} {unit}", "label", "end")


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
    time_format = "%H:%M" if span <= 86_400 else "%a %H:%M" if step < 86_400 else "%d %b"
    times = [first + number * step for number in range(8) if first + number * step <= end_s]
    return [(at, format(local(at), time_format)) for at in times]


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


def render_report(report_data: ReportData, cluster: str, events: Events, notices: Sequence[str], command: str) -> str:
    """`notices`: remarks shown above the figures, for example that engines are emulated; `events`: newest first."""
    emulated = any("emulated" in notice for notice in notices)
    badge = '<span class="badge">emulated</span>' if emulated else ""
    headline, is_met = figures.verdict(report_data)
    css_class = {True: "good", False: "bad", None: ""}[is_met]
    cards = "".join(
        f'<div class="card"><b>{html.escape(figure)}</b><span>{html.escape(description)}</span></div>'
        for figure, description in figures.cards(report_data)
    )
    notes = "".join(f'<p class="emulated">{html.escape(line)}</p>' for line in notices)
    return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(cluster)}: {html.escape(headline)}</title>
<style>{STYLE}{MORE_STYLE}</style>
<main>
<header><p class="eyebrow">{html.escape(cluster)} · {html.escape(figures.period(report_data))} {badge}</p><h1 class="{css_class}">{html.escape(headline)}</h1></header>
{notes}
<section class="cards">{cards}</section>
<h2>Results and objectives</h2>
<div class="wide">{_table(report_data)}</div>
<h2>Over time</h2>
<p class="source">{_legend(report_data)} The number next to each name is its last value.</p>
<section class="charts">{_charts(report_data, emulated)}</section>
<h2>Requests by engine</h2>
<div class="wide">{_engines(report_data)}</div>
<h2>Alerts that fired</h2>
{_alerts(report_data)}
<h2>Events</h2>
{_events(report_data, events)}
<footer>Made with <code>{html.escape(command)}</code> from the cluster's Prometheus. The table covers the whole time. In the charts, rates are over one minute, and shares and percentiles over five minutes.</footer>
</main>
</html>
"""


def _table(report_data: ReportData) -> str:
    heads = "".join(f"<th>{title}</th>" for title in figures.COLUMNS)
    body = "".join(
        f"<tr><th>{html.escape(pool.pool)}</th>"
        + "".join(
            f'<td class="{kind}">{html.escape(figure)}{f"<small>{html.escape(note)}</small>" if note else ""}</td>'
            for figure, note, kind in figures.row(pool)
        )
        + "</tr>"
        for pool in report_data.pools
    )
    return f"<table><thead><tr><th></th>{heads}</tr></thead><tbody>{body}</tbody></table>"


def _legend(report_data: ReportData) -> str:
    if not report_data.marks:
        return "Red spans show when an alert fired."
    marks = sorted(report_data.marks, key=lambda mark: mark.start_s)
    mark_texts = "; ".join(f"{html.escape(mark.text)} ({_time(mark.start_s)[:5]})" for mark in marks)
    return f"Blue spans are marks: {mark_texts}. Red spans are alerts."


def _charts(report_data: ReportData, emulated: bool) -> str:
    has_several_pools = len(report_data.pools) > 1

    def pools(name: str, label: str = "") -> list[RenderedChart]:
        return [_figure(line, label, has_several_pools) for line in report_data.lines[name]]

    def draw(
        title: str,
        unit: str,
        lines: Sequence[RenderedChart],
        max_value: float | None = None,
        objectives: Sequence[float] = (),
    ) -> str:
        return draw_time_chart(report_data, title, unit, lines, max_value, objectives, emulated)

    objectives = [pool.objective_s for pool in report_data.pools if pool.objective_s]
    charts = (
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
            draw("Requests of each engine", "/s", [_engine(line) for line in report_data.lines["engines"]]),
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
                [_percent(line) for line in pools("prefix", "tokens") + pools("images", "images")],
                max_value=100,
            ),
        ),
        (
            "KV cache",
            "Used by running requests, in percent. Above 90 the next requests wait.",
            draw("KV cache", "%", [_percent(_engine(line)) for line in report_data.lines["kv"]], max_value=100),
        ),
        ("Generated tokens", "Per second: the work done.", draw("Generated tokens", "tokens/s", pools("tokens"))),
        ("Engines up", "Engines that receive new requests.", draw("Engines up", "engines", pools("up"))),
    )
    return "".join(
        f"<figure><figcaption><b>{name}</b> {html.escape(text)}</figcaption>{chart or EMPTY_CHART}</figure>"
        for name, text, chart in charts
    )


EMPTY_CHART = '<p class="empty">Nothing to draw: no requests, or Prometheus has no samples of this time.</p>'


def _figure(line: TimeSeries, label: str, has_several_pools: bool) -> RenderedChart:
    pool = line.labels.get("pool", "")
    return RenderedChart(
        " ".join(part for part in (pool if has_several_pools or not label else "", label) if part), line.points
    )


def _engine(line: TimeSeries) -> RenderedChart:
    return RenderedChart(line.labels.get("engine", ""), line.points)


def _percent(line: RenderedChart) -> RenderedChart:
    return RenderedChart(line.name, tuple((at, 100 * value) for at, value in line.points))


def _engines(report_data: ReportData) -> str:
    totals: dict[str, float] = {}
    for pool, _, requests in report_data.answers:
        totals[pool] = totals.get(pool, 0.0) + requests
    rows = "".join(
        f"<tr><th>{html.escape(engine)}<small>{html.escape(pool)}</small></th><td>{figures.format_count(requests)}</td>"
        f"<td>{figures.format_percent(share) if totals[pool] else '–'}</td>"
        f'<td class="bar-cell"><span class="share-bar" style="width:{100 * share:.1f}%"></span></td></tr>'
        for pool, engine, requests in report_data.answers
        for share in [requests / totals[pool] if totals[pool] else 0.0]
    )
    return f'<table class="engines"><thead><tr><th>engine</th><th>requests</th><th>of its pool</th><th></th></tr></thead><tbody>{rows}</tbody></table>'


def _alerts(report_data: ReportData) -> str:
    if not report_data.alerts:
        return '<p class="source">None.</p>'
    rows = "".join(
        f"<tr><th>{html.escape(span.text)}<small>{html.escape(span.note)}</small></th><td>{_time(span.start_s)}</td>"
        f"<td>{'still' if report_data.end_s - span.end_s < 3 * report_data.step_s else figures.format_duration(span.end_s - span.start_s)}</td></tr>"
        for span in report_data.alerts
    )
    return f'<div class="wide"><table><thead><tr><th></th><th>from</th><th>lasted</th></tr></thead><tbody>{rows}</tbody></table></div>'


def _events(report_data: ReportData, events: Events) -> str:
    """Events of the report's time from the controller, which stores the last 500 and loses them when it restarts."""
    shown_events = [(at, text) for at, text in events if report_data.start_s <= at.timestamp() <= report_data.end_s]
    if not shown_events:
        return '<p class="source">The controller has no events of this time.</p>'
    rows = "".join(
        f"<li><time>{_time(at.timestamp())}</time>{html.escape(text)}</li>" for at, text in shown_events[:EVENTS_SHOWN]
    )
    more = f"<li>and {len(shown_events) - EVENTS_SHOWN} earlier events</li>" if len(shown_events) > EVENTS_SHOWN else ""
    return f'<ul class="events">{rows}{more}</ul>'


def _time(at_s: float) -> str:
    return f"{datetime.fromtimestamp(at_s).astimezone():%H:%M:%S}"
