"""One picture of the chats, as SVG: requests a second, first token, and prompt tokens from cache, side by side."""

from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from benchmarks.report.results import OURS, BenchmarkResults, MeasuredSpread, ResultRow
from benchmarks.report.tables import fastest_first
from benchmarks.runner import NO_GATEWAY

LABELS, PANEL, GAP, LINE, TOP, EDGE = 250, 205, 36, 27, 104, 20
INK, SOFT, LINES, BAR, OUR_BAR, BOUND = "#1f2328", "#59636e", "#d1d9e0", "#b4bdc8", "#1a7f5a", "#bc4c00"


@dataclass(frozen=True)
class ChartPanel:
    """`keys` leads to the value of a row; `best`: the bound's line, where there is one."""

    title: str
    key: str
    factor: float
    digits: int
    hint: str
    top: float | None = None


PANELS = (
    ChartPanel("Requests a second", "rps", 1, 1, "longer is better"),
    ChartPanel("First token, median, ms", "first_p50_s", 1e3, 0, "shorter is better"),
    ChartPanel("Prompt tokens from cache", "prefix_share", 1, 2, "longer is better", 1.0),
)


def draw_chart(results: BenchmarkResults, engines: int) -> str:
    """Empty where no chats were measured."""
    groups = [("", results.rows("work", engines, "chat", 0)), ("the client sends a session header", [])]
    groups[1][1].extend(results.rows("work", engines, "chat", 1))
    rows = [(title, fastest_first([row for row in found if row.found])) for title, found in groups]
    bound = next((row for row in rows[0][1] if row.gateway == NO_GATEWAY), None)
    drawn = [(title, [row for row in found if row.gateway != NO_GATEWAY]) for title, found in rows]
    everything = [row for _, found in drawn for row in found]
    if not everything:
        return ""
    height = TOP + LINE * (len(everything) + sum(1 for title, found in drawn if title and found)) + 58
    width = EDGE + LABELS + len(PANELS) * (PANEL + GAP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        "font-family=\"-apple-system, 'Segoe UI', 'DejaVu Sans', Helvetica, Arial, sans-serif\">",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        _text(EDGE, 32, _title(results, engines), 18, INK, weight=600),
        _text(EDGE, 54, _subtitle(results), 12.5, SOFT),
    ]
    y = TOP
    places: list[tuple[float, ResultRow]] = []
    for title, found in drawn:
        if title and found:
            parts.append(_text(EDGE, y + 18, f"{title}:", 12.5, SOFT))
            y += LINE
        for row in found:
            places.append((y, row))
            ours = row.gateway == OURS
            parts.append(_text(EDGE + LABELS - 12, y + 17, row.gateway, 13, INK, 700 if ours else 400, "end"))
            y += LINE
    for number, panel in enumerate(PANELS):
        left = EDGE + LABELS + number * (PANEL + GAP)
        parts += _panel(panel, left, y, places, bound)
    if bound:
        parts.append(f'<line x1="{EDGE}" x2="{EDGE + 22}" y1="{y + 26}" y2="{y + 26}" stroke="{BOUND}" {_DASHES}/>')
        parts.append(_text(EDGE + 30, y + 30, "no gateway: clients choose engines perfectly themselves", 12, SOFT))
    parts.append(
        _text(width - EDGE, y + 30, "bars: median of repeats; thin lines: lowest to highest", 12, SOFT, 400, "end")
    )
    return "\n".join([*parts, "</svg>"]) + "\n"


_DASHES = 'stroke-width="1.6" stroke-dasharray="5 3"'


def _title(results: BenchmarkResults, engines: int) -> str:
    return f"Chats about pictures on {engines} engines (emulated): one gateway against the others"


def _subtitle(results: BenchmarkResults) -> str:
    about = results.about["machine"]
    quick = "QUICK RUN, no figures to quote. " if results.about["quick"] else ""
    return (
        f"{quick}Users chat in six turns about one picture each, everything resent each turn. "
        f"{results.repeats} repeat(s), {about['date']}, {about['cores']} cores."
    )


def _panel(
    panel: ChartPanel, left: float, bottom: float, places: Sequence[tuple[float, ResultRow]], bound: ResultRow | None
) -> list[str]:
    found = [(y, row, row.spread(panel.key)) for y, row in places]
    limit = bound.spread(panel.key) if bound else None
    highest = max([s.high * panel.factor for _, _, s in found if s] + ([limit.middle * panel.factor] if limit else []))
    room = PANEL - 44
    scale = room / (panel.top or highest * 1.02 or 1)
    parts = [
        _text(left, TOP - 24, panel.title, 13, INK, 600),
        _text(left, TOP - 8, panel.hint, 11.5, SOFT),
        f'<line x1="{left}" x2="{left}" y1="{TOP}" y2="{bottom}" stroke="{LINES}"/>',
    ]
    numbers = []
    for y, row, values in found:
        if values:
            bar, number = _bar(panel, left, y, scale, values, row.gateway == OURS)
            parts.append(bar)
            numbers.append(number)
    if limit:
        x = left + limit.middle * panel.factor * scale
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 2}" y2="{bottom}" stroke="{BOUND}" {_DASHES}/>')
    return parts + numbers


def _bar(panel: ChartPanel, left: float, y: float, scale: float, values: MeasuredSpread, ours: bool) -> tuple[str, str]:
    """A bar with its spread, and its number, which goes on top of all lines."""
    middle, low, high = (value * panel.factor * scale for value in (values.middle, values.low, values.high))
    number = f"{values.middle * panel.factor:,.{panel.digits}f}"
    return (
        f'<rect x="{left}" y="{y + 5}" width="{max(1.0, middle):.1f}" height="{LINE - 9}" rx="2" '
        f'fill="{OUR_BAR if ours else BAR}"/>\n'
        f'<line x1="{left + low:.1f}" x2="{left + high:.1f}" y1="{y + LINE / 2 + 0.5}" y2="{y + LINE / 2 + 0.5}" '
        f'stroke="{INK}" stroke-width="1.2"/>',
        _text(left + max(middle, high) + 6, y + 17.5, number, 12, INK, 700 if ours else 400),
    )


def _text(x: float, y: float, words: str, size: float, colour: str, weight: int = 400, anchor: str = "start") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{colour}" font-weight="{weight}" '
        f'text-anchor="{anchor}" paint-order="stroke" stroke="#ffffff" stroke-width="3">{escape(words)}</text>'
    )
