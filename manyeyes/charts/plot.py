"""A frame with two axes as inline SVG: no script, no font, no library. Colours are the page's variables (page.css), so that light
and dark are the same picture."""

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

WIDTH, HEIGHT = 460, 286
LEFT, RIGHT, TOP, BOTTOM = 46, 14, 34, 40


@dataclass
class Plot:
    """A frame with two axes, in data's units."""

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
        told = f"<title>{html.escape(title)}</title>" if title else ""
        self.parts.append(
            f'<circle cx="{self.x(x):.1f}" cy="{self.y(y):.1f}" r="{radius}" class="{style}">{told}</circle>'
        )

    def text(self, x: float, y: float, text: str, style: str = "label", anchor: str = "middle") -> None:
        """In pixels."""
        self.parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" class="{style}" text-anchor="{anchor}">{html.escape(text)}</text>'
        )

    def svg(self, emulated: bool) -> str:
        ticks = []
        for value in nice(self.y_high):
            at = self.y(value)
            ticks.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}" class="grid"/>')
            ticks.append(f'<text x="{LEFT - 7}" y="{at + 4:.1f}" class="label" text-anchor="end">{value:g}</text>')
        mark = f'<text x="{WIDTH - RIGHT}" y="11" class="mark" text-anchor="end">emulated</text>' if emulated else ""
        return (
            f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{html.escape(self.title)}">'
            f"{''.join(ticks)}{''.join(self.parts)}{mark}"
            f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 6}" class="axis" text-anchor="middle">{html.escape(self.x_title)}</text>'
            f'<text x="{LEFT - 38}" y="11" class="axis">{html.escape(self.y_title)}</text></svg>'
        )


def nice(high: float) -> list[float]:
    """Four or five round numbers up to `high`, 0 among them."""
    if high <= 0:
        return [0.0]
    rough = high / 4
    power = 10 ** math.floor(math.log10(rough))
    step = next(power * size for size in (1, 2, 2.5, 5, 10) if power * size >= rough)
    return [step * n for n in range(int(high / step + 1e-9) + 1)]


def apart(places: Sequence[float], least: float) -> list[float]:
    """The same places from top to bottom, moved so that none is nearer than `least` to the one above it."""
    moved: list[float] = []
    for place in places:
        moved.append(max(place, moved[-1] + least) if moved else place)
    return moved
