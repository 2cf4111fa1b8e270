"""Figures over time as one SVG: a panel each, a line for each part. Pure."""

import html
from collections.abc import Mapping, Sequence

Line = Sequence[tuple[float, float]]
WIDTH, HEIGHT, LEFT, TOP = 900, 170, 60, 26
COLOURS = ("#0b6bcb", "#12866f", "#b3541e")
# Light and dark, as whatever page shows it.
STYLE = (
    "text { font: 12px system-ui, sans-serif; fill: #667085 } .name { font-weight: 600 } line { stroke: #98a2b3; stroke-opacity: .4 } "
    "path { fill: none; stroke-width: 2 }"
)


def lines(panels: Mapping[str, Mapping[str, Line]]) -> str:
    """{title: {part: [(seconds, value)]}}; every panel begins at 0."""
    height = HEIGHT * len(panels) + 10
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}"><style>{STYLE}</style>']
    for number, (title, panel) in enumerate(panels.items()):
        parts.append(_panel(title, panel, HEIGHT * number))
    return "".join([*parts, "</svg>\n"])


def _panel(title: str, panel: Mapping[str, Line], top: float) -> str:
    points = [point for line in panel.values() for point in line]
    longest = max((at_s for at_s, _ in points), default=1) or 1
    most = max((value for _, value in points), default=1) or 1
    inner, floor = HEIGHT - TOP - 24, top + HEIGHT - 24
    parts = [f'<text class="name" x="{LEFT}" y="{top + 16}">{html.escape(title)}</text>']
    for share in (0, 0.5, 1):
        y = floor - share * inner
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - 10}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{share * most:.0f}</text>')
    for at, (name, line) in enumerate(panel.items()):
        colour = COLOURS[at % len(COLOURS)]
        steps = [
            f"{LEFT + (WIDTH - LEFT - 10) * at_s / longest:.1f} {floor - inner * value / most:.1f}"
            for at_s, value in line
        ]
        if steps:
            parts.append(f'<path stroke="{colour}" d="M {" L ".join(steps)}"/>')
        parts.append(f'<text x="{260 + 160 * at}" y="{top + 16}" style="fill: {colour}">{html.escape(name)}</text>')
    parts.append(f'<text x="{WIDTH - 10}" y="{top + HEIGHT - 8}" text-anchor="end">{longest / 60:.0f} min</text>')
    return "".join(parts)
