"""The page's pictures as inline SVG: no script, no font, no library. Colours are the page's variables, so that light and dark
are the same picture. Each is a function from results to text, or to nothing where there is nothing to show."""

import html
from collections.abc import Callable

from loadtest.scaling_report.results import EngineCountResult, ScalingResults
from manyeyes.charts.svg import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Plot, round_ticks, spread_apart

NAME_WIDTH = 64
"""Of a limit's name: `8: 56.5/s`."""


def throughput(results: ScalingResults, emulated: bool) -> str:
    """Requests a second by engines, each repeat a dot, and the straight line that one engine promises."""
    counts = [at for at in results.counts.values() if at.full_rps]
    if not counts or not counts[0].full_rps:
        return ""
    one = counts[0].full_rps.median / counts[0].count
    most = max(at.count for at in counts)
    high = max(one * most, *(at.full_rps.high for at in counts if at.full_rps)) * 1.12
    plot = Plot(0, most + 0.6, high, "requests a second", "engines", "Requests a second by number of engines")
    plot.line([(0, 0), (most + 0.6, one * (most + 0.6))], "ideal")
    wide = min(46.0, 0.55 * (plot.x(1) - plot.x(0)))
    for at in counts:
        assert at.full_rps
        left, top = plot.x(at.count) - wide / 2, plot.y(at.full_rps.median)
        plot.parts.append(
            f'<rect x="{left:.1f}" y="{top:.1f}" width="{wide:.1f}" height="{HEIGHT - BOTTOM - top:.1f}" rx="3" class="bar"/>'
        )
        for value in at.full_rps.values:
            plot.dot(at.count, value, "repeat", 2.4, f"{value:.2f} a second")
        plot.text(plot.x(at.count), top - 8, f"{at.full_rps.median:.1f}", "value")
        plot.text(plot.x(at.count), HEIGHT - BOTTOM + 15, str(at.count))
    return plot.svg(emulated)


def latency(results: ScalingResults, emulated: bool) -> str:
    """P50, P95, P99 of the same people's answers, by engines."""
    counts = [at for at in results.counts.values() if at.same_p95_s]
    if len(counts) < 2:
        return ""
    most = max(at.count for at in counts)
    high = max(at.same_p99_s.median for at in counts if at.same_p99_s) * 1.15
    plot = Plot(
        0.7,
        most + 0.3 * (most - 0.7),  # room for the names of the lines
        high,
        "seconds",
        "engines",
        "Time to the whole answer, by number of engines",
    )
    values: tuple[tuple[str, Callable[[EngineCountResult], float | None], str], ...] = (
        ("p99", lambda at: at.same_p99_s.median if at.same_p99_s else None, "third"),
        ("p95", lambda at: at.same_p95_s.median if at.same_p95_s else None, "first"),
        ("p50", lambda at: at.same_p50_s.median if at.same_p50_s else None, "second"),
    )
    ends: list[tuple[float, str, str]] = []
    for name, value, style in values:
        points = [(float(at.count), found) for at in counts if (found := value(at)) is not None]
        plot.line(points, f"line {style}")
        for x, y in points:
            plot.dot(x, y, f"dot {style}", title=f"{name} {y:.2f} s")
        ends.append((plot.y(points[-1][1]), f"{name} {points[-1][1]:.2f} s", style))
    for at_y, (_, text, style) in zip(spread_apart([end[0] for end in ends], 15), ends, strict=True):
        plot.text(plot.x(counts[-1].count) + 9, at_y + 4, text, f"value t-{style}", "start")
    for at in counts:
        plot.text(plot.x(at.count), HEIGHT - BOTTOM + 15, str(at.count))
    return plot.svg(emulated)


def knees(results: ScalingResults, slo_s: float, emulated: bool) -> str:
    """P95 against the rate of arrivals, one line for each number of engines: where each of them bends."""
    counts = [at for at in results.counts.values() if at.probes]
    if not counts:
        return ""
    right = max(rate for at in counts for rate, _, _ in at.probes) * 1.08
    plot = Plot(0, right, slo_s * 1.6, "p95, seconds", "arrivals a second", "P95 by rate of arrivals")
    plot.parts.append(
        f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{plot.y(slo_s):.1f}" y2="{plot.y(slo_s):.1f}" class="slo"/>'
    )
    plot.text(WIDTH - RIGHT, plot.y(slo_s) + 15, f"objective {slo_s:g} s", "label", "end")
    names: list[tuple[float, str, str]] = []
    for number, at in enumerate(counts):
        style = ("second", "third", "first")[max(0, 3 - len(counts)) :][number % 3] if len(counts) <= 3 else "first"
        for rate, p95_s, held in sorted(at.probes):
            plot.dot(
                rate,
                p95_s or slo_s * 1.6,
                f"dot {style}" if held else f"ring {style}",
                3.6,
                f"{at.count} engine(s), {rate:.2f} a second: p95 {p95_s:.2f} s, {'held' if held else 'missed'}",
            )
        if at.limit_rps and at.limit_rps.median:
            x = plot.x(at.limit_rps.median)
            plot.parts.append(
                f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}" class="limit l-{style}"/>'
            )
            names.append((x, f"{at.count}: {at.limit_rps.median:.1f}/s", style))
    names.sort(reverse=True)  # from the right one, which has to stay inside, to the left
    for left, (_, name, style) in zip(
        spread_apart([-min(x, WIDTH - RIGHT - 34) for x, _, _ in names], NAME_WIDTH), names, strict=True
    ):
        plot.text(-left, TOP - 3, name, f"value t-{style}")
    for value in round_ticks(right):
        plot.text(plot.x(value), HEIGHT - BOTTOM + 15, f"{value:g}")
    return plot.svg(emulated)


def shares(results: ScalingResults, emulated: bool) -> str:
    """Which share of the answers each engine gave: a bar for each number of engines."""
    counts = [at for at in results.counts.values() if at.share]
    if not counts:
        return ""
    row, top = 44, 30
    height = top + row * len(counts) + 6
    parts = []
    for number, at in enumerate(counts):
        y, x = top + number * row, float(LEFT)
        parts.append(f'<text x="{LEFT - 8}" y="{y + 19}" class="label" text-anchor="end">{at.count}</text>')
        for index, (name, share) in enumerate(at.share.items()):
            wide = (WIDTH - LEFT - RIGHT) * share
            parts.append(
                f'<rect x="{x + 1:.1f}" y="{y}" width="{max(1.0, wide - 2):.1f}" height="28" rx="3" class="share s{index % 2}">'
                f"<title>{html.escape(name)}: {share:.1%}</title></rect>"
            )
            if wide > 34:
                parts.append(
                    f'<text x="{x + wide / 2:.1f}" y="{y + 19}" class="inside" text-anchor="middle">{share:.1%}</text>'
                )
            x += wide
    mark = f'<text x="{WIDTH - RIGHT}" y="12" class="mark" text-anchor="end">emulated</text>' if emulated else ""
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="Share of the answers by engine">{"".join(parts)}{mark}'
        f'<text x="8" y="12" class="axis">engines</text></svg>'
    )
