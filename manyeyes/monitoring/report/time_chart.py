"""A chart of lines over the time of the report, with marks and alerts behind them. Pure: values in, SVG and legend out."""

import html
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from manyeyes.charts.svg import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Plot, round_ticks
from manyeyes.monitoring.report.queries import AlertSpan, ReportData

COLOURS = 8
MAX_LINES = 8
"""More than that cannot be told apart; the busiest are drawn."""


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
    """The SVG and, under it, which colour is what; empty while there is nothing to draw."""
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
    _hours(plot, about)
    legend = "".join(
        f'<span class="key"><i class="k{number % COLOURS}"></i>{html.escape(line.name)} <b>{_short(line.points[-1][1])}</b></span>'
        for number, line in enumerate(shown)
        if line.points
    )
    left_out = f'<span class="key">and {len(lines) - len(shown)} more</span>' if len(lines) > len(shown) else ""
    return f'{plot.svg(emulated)}<div class="legend">{legend}{left_out}</div>'


def pieces(points: Sequence[tuple[float, float]], step_s: float) -> list[list[tuple[float, float]]]:
    """The line, broken where samples are missing: a gap is no straight line."""
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


def _hours(plot: Plot, about: ReportData) -> None:
    for at, text in clock(about.start_s, about.end_s):
        plot.text(plot.x(at), HEIGHT - BOTTOM + 17, text)


def clock(
    start_s: float,
    end_s: float,
    local: Callable[[float], datetime] = lambda at: datetime.fromtimestamp(at).astimezone(),
) -> list[tuple[float, str]]:
    """Four to seven round times between, in the host's own time zone; with the day where that is needed."""
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
    """To the next round tick, so that the highest line of the grid is the top."""
    if value <= 0:
        return 1.0
    ticks = round_ticks(value)
    step = ticks[1] - ticks[0] if len(ticks) > 1 else value
    return math.ceil(value / step - 1e-9) * step


def _short(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
