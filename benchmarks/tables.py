"""Tables and chart of docs/benchmarks/gateways.md, each from one kind of measurement."""

from collections import Counter
from collections.abc import Sequence
from xml.sax.saxutils import escape

from benchmarks.load import LIMIT_SHARE
from benchmarks.measurements import SIZES
from benchmarks.results import OURS, BenchmarkResults, MeasuredSpread, ResultRow
from benchmarks.runner import NO_GATEWAY
from manyeyes.charts.templates import markdown_table

MACHINE_LIMIT = 0.9
NONE = "-"


def name(gateway: str) -> str:
    if gateway == OURS:
        return f"**{gateway}**"
    return f"*{gateway}* (bound)" if gateway == NO_GATEWAY else gateway


def cell(spread: MeasuredSpread | None, digits: int = 1, factor: float = 1.0) -> str:
    return spread.shown(digits, factor) if spread else NONE


def fastest_first(rows: Sequence[ResultRow]) -> list[ResultRow]:
    return sorted(rows, key=lambda row: row.middle("rps") if row.figures else -1.0, reverse=True)


WORK_COLUMNS = (
    ("RPS", "rps", 1, 1.0),
    ("p95 s", "total_p95_s", 2, 1.0),
    ("first token p50 ms", "first_p50_s", 0, 1e3),
    ("first token p99 ms", "first_p99_s", 0, 1e3),
    ("from cache", "prefix_share", 3, 1.0),
    ("busiest engine", "busiest_engine", 2, 1.0),
)
"""Title, key, digits and factor."""


def work_table(results: BenchmarkResults, engines: int, work: str, headers: int = 0) -> str:
    """Requests a second, latencies, cache hits and failures of one kind of work, with notes on what limited a run."""
    rows = results.rows("work", engines, work, headers)
    if not rows:
        return ""
    if headers:  # for comparison: gateways that ignore session headers
        plain = results.rows("work", engines, work)
        rows += [row for row in plain if row.gateway in (OURS, NO_GATEWAY)]
    rows = fastest_first(rows)
    lines = []
    for row in rows:
        if not row.figures:
            lines.append([name(row.gateway), *[NONE] * len(WORK_COLUMNS), "did not run"])
            continue
        failed = sum(int(n) for n in row.each("failed"))
        of = failed + sum(int(n) for n in row.each("answered"))
        cells = [cell(row.spread(key), digits, factor) for _, key, digits, factor in WORK_COLUMNS]
        lines.append([name(row.gateway), *cells, f"{failed:,} of {of:,}"])
    head = ["gateway", *(title for title, *_ in WORK_COLUMNS), "failed"]
    return markdown_table(head, lines) + _notes(rows)


def _notes(rows: Sequence[ResultRow]) -> str:
    notes = []
    for row in rows:
        if any(share > LIMIT_SHARE for share in row.each("users_core_share")):
            notes.append(f"{row.gateway}: the generator was the limit (above {LIMIT_SHARE:.0%} of a core).")
        if any(share > MACHINE_LIMIT for share in row.each("machine_share")):
            notes.append(f"{row.gateway}: the machine was the limit (above {MACHINE_LIMIT:.0%} of all cores busy).")
        errors: Counter[str] = Counter()
        for figures in row.figures:
            errors.update(figures["errors"])
        if errors:
            counts = ", ".join(f"{n} with {reason}" for reason, n in errors.items())
            notes.append(f"{row.gateway}: failed requests: {counts}.")
        notes += [f"{row.gateway}: one run failed: {reason.splitlines()[0][:200]}" for reason in row.failures]
    return "\n" + "\n".join(f"* {note}" for note in notes) + "\n" if notes else ""


def cost_table(results: BenchmarkResults, engines: int) -> str:
    lines = []
    for row in fastest_first(results.rows("work", engines, "chat")):
        if row.figures and row.gateway != NO_GATEWAY:
            each = [1e3 * cpu / done for cpu, done in zip(row.each("gateway_cpu_s"), row.each("answered"), strict=True)]
            used = MeasuredSpread(sorted(each)[len(each) // 2], min(each), max(each))
            lines.append([name(row.gateway), cell(used, 2), cell(row.spread("gateway_memory_mb"), 0)])
    return markdown_table(["gateway", "CPU ms for a streamed request", "memory MiB"], lines) if lines else ""


def cpu_table(results: BenchmarkResults) -> str:
    rows = sorted(results.rows("cpu"), key=lambda row: min(row.each("200 KB", "cpu_us"), default=1e12))
    lines = [
        [
            name(row.gateway),
            *(cell(row.spread(size, "cpu_us"), 0) for size in SIZES),
            cell(row.spread("3 KB", "idle_share"), 2, 100),
            cell(row.spread("2 MB", "memory_mb"), 0),
        ]
        for row in rows
    ]
    head = ["gateway", *(f"{size} µs" for size in SIZES), "idle, % of a core", "memory after the run, MiB"]
    return markdown_table(head, lines) + _parts(rows) if lines else ""


def _parts(rows: Sequence[ResultRow]) -> str:
    ours = next((row for row in rows if row.gateway == OURS and row.figures), None)
    if not ours:
        return ""
    lines = []
    for size in SIZES:
        parts = [figures[size]["parts_us"] for figures in ours.figures]
        middle = {part: sorted(p[part] for p in parts)[len(parts) // 2] for part in parts[0]}
        lines.append(f"{size} " + " + ".join(f"{part} {us:,.0f}" for part, us in middle.items()))
    return f"\n{OURS} by process: " + "; ".join(lines) + " µs.\n"


def latency_table(results: BenchmarkResults) -> str:
    rows = sorted(results.rows("latency"), key=lambda row: min(row.each("3 KB", "added_p50_ms"), default=1e12))
    lines = [
        [name(row.gateway)]
        + [cell(row.spread(size, f"added_{p}_ms"), 2) for size in ("3 KB", "200 KB") for p in ("p50", "p99")]
        for row in rows
    ]
    return (
        markdown_table(["gateway", "3 KB p50 ms", "3 KB p99 ms", "200 KB p50 ms", "200 KB p99 ms"], lines)
        if lines
        else ""
    )


def stream_table(results: BenchmarkResults) -> str:
    rows = sorted(results.rows("stream"), key=lambda row: min(row.each("added_first_p50_ms"), default=1e12))
    lines = []
    for row in rows:
        both = [
            f"{cell(row.spread(f'direct_{key}'), digits, factor)} / {cell(row.spread(f'through_{key}'), digits, factor)}"
            for key, digits, factor in (("gap_p50_ms", 2, 1.0), ("gap_p99_ms", 1, 1.0), ("together", 1, 100.0))
        ]
        lines.append([name(row.gateway), cell(row.spread("added_first_p50_ms"), 2), *both])
    head = [
        "gateway",
        "added time to first token, ms",
        "gap p50 ms, direct / through",
        "gap p99 ms",
        "chunks that arrive together, %",
    ]
    return markdown_table(head, lines) if lines else ""


LABELS, PANEL, GAP, LINE, TOP, EDGE = 250, 205, 36, 27, 104, 20
INK, SOFT, LINES, BAR, OUR_BAR, BOUND = "#1f2328", "#59636e", "#d1d9e0", "#b4bdc8", "#1a7f5a", "#bc4c00"


PANELS = (
    ("Requests a second", "rps", 1.0, 1, "longer is better", None),
    ("First token, median, ms", "first_p50_s", 1e3, 0, "shorter is better", None),
    ("Prompt tokens from cache", "prefix_share", 1.0, 2, "longer is better", 1.0),
)
"""Title, figure, factor, digits, which direction is better, and the end of the axis if it is not the highest value."""


def draw_chart(results: BenchmarkResults, engines: int) -> str:
    """Draws the chart as SVG; empty if no chats were measured."""
    plain, with_header = (
        fastest_first([row for row in results.rows("work", engines, "chat", headers) if row.figures])
        for headers in (0, 1)
    )
    bound = next((row for row in plain if row.gateway == NO_GATEWAY), None)
    drawn = [
        (title, [row for row in rows if row.gateway != NO_GATEWAY])
        for title, rows in (("", plain), ("the client sends a session header", with_header))
    ]
    everything = [row for _, chart_rows in drawn for row in chart_rows]
    if not everything:
        return ""
    height = TOP + LINE * (len(everything) + sum(1 for title, chart_rows in drawn if title and chart_rows)) + 58
    width = EDGE + LABELS + len(PANELS) * (PANEL + GAP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        "font-family=\"-apple-system, 'Segoe UI', 'DejaVu Sans', Helvetica, Arial, sans-serif\">",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        _text(
            EDGE,
            32,
            f"Chats about images on {engines} engines (emulated): comparison of gateways",
            18,
            INK,
            600,
        ),
        _text(EDGE, 54, _subtitle(results), 12.5, SOFT),
    ]
    y = TOP
    places: list[tuple[float, ResultRow]] = []
    for title, chart_rows in drawn:
        if title and chart_rows:
            parts.append(_text(EDGE, y + 18, f"{title}:", 12.5, SOFT))
            y += LINE
        for row in chart_rows:
            places.append((y, row))
            ours = row.gateway == OURS
            parts.append(_text(EDGE + LABELS - 12, y + 17, row.gateway, 13, INK, 700 if ours else 400, "end"))
            y += LINE
    for number in range(len(PANELS)):
        parts += _panel(number, EDGE + LABELS + number * (PANEL + GAP), y, places, bound)
    if bound:
        parts.append(f'<line x1="{EDGE}" x2="{EDGE + 22}" y1="{y + 26}" y2="{y + 26}" stroke="{BOUND}" {_DASHES}/>')
        parts.append(_text(EDGE + 30, y + 30, "no gateway: each client stays at one engine", 12, SOFT))
    parts.append(
        _text(width - EDGE, y + 30, "bars: median of repeats; thin lines: lowest to highest", 12, SOFT, 400, "end")
    )
    return "\n".join([*parts, "</svg>"]) + "\n"


_DASHES = 'stroke-width="1.6" stroke-dasharray="5 3"'


def _subtitle(results: BenchmarkResults) -> str:
    machine = results.metadata["machine"]
    quick = "QUICK RUN, no figures to quote. " if results.metadata["quick"] else ""
    return (
        f"{quick}Each user chats in six turns about one image and sends the whole conversation each turn. "
        f"{results.repeats} repeat(s), {machine['date']}, {machine['cores']} cores."
    )


def _panel(
    number: int, left: float, bottom: float, places: Sequence[tuple[float, ResultRow]], bound: ResultRow | None
) -> list[str]:
    title, key, factor, digits, hint, top = PANELS[number]
    bars = [(y, row, values) for y, row in places if (values := row.spread(key))]
    limit = bound.middle(key) * factor if bound else 0.0
    highest = max([values.high * factor for _, _, values in bars] + [limit])
    scale = (PANEL - 44) / (top or highest * 1.02 or 1)
    parts = [
        _text(left, TOP - 24, title, 13, INK, 600),
        _text(left, TOP - 8, hint, 11.5, SOFT),
        f'<line x1="{left}" x2="{left}" y1="{TOP}" y2="{bottom}" stroke="{LINES}"/>',
    ]
    numbers = []  # drawn last, on top of all lines
    for y, row, values in bars:
        ours = row.gateway == OURS
        middle, low, high = (value * factor * scale for value in (values.middle, values.low, values.high))
        parts.append(
            f'<rect x="{left}" y="{y + 5}" width="{max(1.0, middle):.1f}" height="{LINE - 9}" rx="2" '
            f'fill="{OUR_BAR if ours else BAR}"/>\n'
            f'<line x1="{left + low:.1f}" x2="{left + high:.1f}" y1="{y + LINE / 2 + 0.5}" y2="{y + LINE / 2 + 0.5}" '
            f'stroke="{INK}" stroke-width="1.2"/>'
        )
        shown = f"{values.middle * factor:,.{digits}f}"
        numbers.append(_text(left + max(middle, high) + 6, y + 17.5, shown, 12, INK, 700 if ours else 400))
    if bound:
        x = left + limit * scale
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 2}" y2="{bottom}" stroke="{BOUND}" {_DASHES}/>')
    return parts + numbers


def _text(x: float, y: float, text: str, size: float, colour: str, weight: int = 400, anchor: str = "start") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{colour}" font-weight="{weight}" '
        f'text-anchor="{anchor}" paint-order="stroke" stroke="#ffffff" stroke-width="3">{escape(text)}</text>'
    )
