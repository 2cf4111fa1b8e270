"""Draws charts as inline SVG for self-contained HTML pages, without scripts, fonts or libraries. Pure.

`Plot` is a frame with two axes. Its colours are CSS variables (page.css), so that a chart works in light and dark mode.
`draw_panels` makes a separate SVG file: figures over time, one panel each.
"""

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

STYLE = Path(__file__).with_name("page.css").read_text(encoding="utf-8")


WIDTH, HEIGHT = 460, 286
LEFT, RIGHT, TOP, BOTTOM = 46, 14, 34, 40


@dataclass
class Plot:
    """A frame with two axes, in the units of the data."""

    x_low: float
    x_high: float
    y_high: float
    y_title: str
    x_title: str
    title: str
    parts: list[str] = field(default_factory=list)

    def x(self, value: float) -> float:
        span = (self.x_high - self.x_low) or 1.0
        return LEFT + (WIDTH - LEFT - RIGHT) * (value - self.x_low) / span

    def y(self, value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * min(value, self.y_high * 1.02) / (self.y_high or 1.0)

    def line(self, points: Sequence[tuple[float, float]], style: str) -> None:
        path = " ".join(f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in points)
        self.parts.append(f'<polyline points="{path}" class="{style}"/>')

    def dot(self, x: float, y: float, style: str, radius: float = 3.2, title: str = "") -> None:
        tooltip = f"<title>{html.escape(title)}</title>" if title else ""
        self.parts.append(
            f'<circle cx="{self.x(x):.1f}" cy="{self.y(y):.1f}" r="{radius}" class="{style}">{tooltip}</circle>'
        )

    def text(self, x: float, y: float, text: str, style: str = "label", anchor: str = "middle") -> None:
        """Adds text at a position in pixels."""
        self.parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" class="{style}" text-anchor="{anchor}">{html.escape(text)}</text>'
        )

    def tick(self, value: float, text: str = "") -> None:
        """Adds a label under the x axis: `text`, or the value."""
        self.text(self.x(value), HEIGHT - BOTTOM + 15, text or f"{value:g}")

    def svg(self, emulated: bool) -> str:
        ticks = []
        for value in round_ticks(self.y_high):
            y = self.y(value)
            ticks.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>')
            ticks.append(f'<text x="{LEFT - 7}" y="{y + 4:.1f}" class="label" text-anchor="end">{value:g}</text>')
        emulated_mark = (
            f'<text x="{WIDTH - RIGHT}" y="11" class="mark" text-anchor="end">emulated</text>' if emulated else ""
        )
        return (
            f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{html.escape(self.title)}">'
            f"{''.join(ticks)}{''.join(self.parts)}{emulated_mark}"
            f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 6}" class="axis" text-anchor="middle">{html.escape(self.x_title)}</text>'
            f'<text x="{LEFT - 38}" y="11" class="axis">{html.escape(self.y_title)}</text></svg>'
        )


def round_ticks(high: float) -> list[float]:
    """Four or five round numbers from 0 to `high`."""
    if high <= 0:
        return [0.0]
    rough = high / 4
    power = 10 ** math.floor(math.log10(rough))
    step = next(power * size for size in (1, 2, 2.5, 5, 10) if power * size >= rough)
    return [step * n for n in range(int(high / step + 1e-9) + 1)]


def spread_apart(places: Sequence[float], min_distance: float) -> list[float]:
    """`places` from top to bottom, moved so that the distance between neighbours is at least `least`."""
    moved: list[float] = []
    for place in places:
        moved.append(max(place, moved[-1] + min_distance) if moved else place)
    return moved


TimeLine = Sequence[tuple[float, float]]
PANEL_WIDTH, PANEL_HEIGHT, PANEL_LEFT, PANEL_TOP = 900, 170, 60, 26
PANEL_COLOURS = ("#0b6bcb", "#12866f", "#b3541e")
# Colours for light and dark pages.
PANEL_STYLE = (
    "text { font: 12px system-ui, sans-serif; fill: #667085 } .name { font-weight: 600 } line { stroke: #98a2b3; stroke-opacity: .4 } "
    "path { fill: none; stroke-width: 2 }"
)


def draw_panels(panels: Mapping[str, Mapping[str, TimeLine]]) -> str:
    """An SVG file with one panel per title.

    `panels`: {title: {part: [(seconds, value)]}}. The y axis of every panel begins at 0.
    """
    height = PANEL_HEIGHT * len(panels) + 10
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {PANEL_WIDTH} {height}"><style>{PANEL_STYLE}</style>'
    ]
    for number, (title, panel) in enumerate(panels.items()):
        parts.append(_panel(title, panel, PANEL_HEIGHT * number))
    return "".join([*parts, "</svg>\n"])


def _panel(title: str, panel: Mapping[str, TimeLine], top: float) -> str:
    points = [point for line in panel.values() for point in line]
    longest_s = max((at_s for at_s, _ in points), default=1) or 1
    highest = max((value for _, value in points), default=1) or 1
    inner, floor = PANEL_HEIGHT - PANEL_TOP - 24, top + PANEL_HEIGHT - 24
    parts = [f'<text class="name" x="{PANEL_LEFT}" y="{top + 16}">{html.escape(title)}</text>']
    for share in (0, 0.5, 1):
        y = floor - share * inner
        parts.append(f'<line x1="{PANEL_LEFT}" x2="{PANEL_WIDTH - 10}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{PANEL_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{share * highest:.0f}</text>')
    for position, (name, line) in enumerate(panel.items()):
        colour = PANEL_COLOURS[position % len(PANEL_COLOURS)]
        steps = [
            f"{PANEL_LEFT + (PANEL_WIDTH - PANEL_LEFT - 10) * at_s / longest_s:.1f} {floor - inner * value / highest:.1f}"
            for at_s, value in line
        ]
        if steps:
            parts.append(f'<path stroke="{colour}" d="M {" L ".join(steps)}"/>')
        parts.append(
            f'<text x="{260 + 160 * position}" y="{top + 16}" style="fill: {colour}">{html.escape(name)}</text>'
        )
    parts.append(
        f'<text x="{PANEL_WIDTH - 10}" y="{top + PANEL_HEIGHT - 8}" text-anchor="end">{longest_s / 60:.0f} min</text>'
    )
    return "".join(parts)
