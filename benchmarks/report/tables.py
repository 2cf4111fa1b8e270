"""The tables of docs/benchmarks.md, each from one kind of measurement."""

from collections import Counter
from collections.abc import Sequence

from benchmarks.load import LIMIT_SHARE
from benchmarks.measurements import SIZES
from benchmarks.report.results import OURS, BenchmarkResults, MeasuredSpread, ResultRow
from benchmarks.runner import NO_GATEWAY
from manyeyes.charts.templates import markdown_table

MACHINE_LIMIT = 0.9
NONE = "-"


def name(gateway: str) -> str:
    if gateway == OURS:
        return f"**{gateway}**"
    return f"*{gateway}* (bound)" if gateway == NO_GATEWAY else gateway


def cell(found: MeasuredSpread | None, digits: int = 1, factor: float = 1.0) -> str:
    return found.shown(digits, factor) if found else NONE


def fastest_first(rows: Sequence[ResultRow]) -> list[ResultRow]:
    return sorted(rows, key=lambda row: row.middle("rps") if row.found else -1.0, reverse=True)


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
    """Requests a second, latencies, caches and costs of one kind of work; what limited a run is said below it."""
    rows = results.rows("work", engines, work, headers)
    if not rows:
        return ""
    if headers:  # for comparison: those that no header changes
        plain = results.rows("work", engines, work)
        rows += [row for row in plain if row.gateway in (OURS, NO_GATEWAY)]
    rows = fastest_first(rows)
    lines = []
    for row in rows:
        if not row.found:
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
        for found in row.found:
            errors.update(found["errors"])
        if errors:
            said = ", ".join(f"{n} with {why}" for why, n in errors.items())
            notes.append(f"{row.gateway}: failed were {said}.")
        notes += [f"{row.gateway}: one run did not end: {why.splitlines()[0][:200]}" for why in row.failures]
    return "\n" + "\n".join(f"* {note}" for note in notes) + "\n" if notes else ""


def cost_table(results: BenchmarkResults, engines: int) -> str:
    lines = []
    for row in fastest_first(results.rows("work", engines, "chat")):
        if row.found and row.gateway != NO_GATEWAY:
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
    head = ["gateway", *(f"{size} µs" for size in SIZES), "idle, % of a core", "memory afterwards MiB"]
    return markdown_table(head, lines) + _parts(rows) if lines else ""


def _parts(rows: Sequence[ResultRow]) -> str:
    ours = next((row for row in rows if row.gateway == OURS and row.found), None)
    if not ours:
        return ""
    said = []
    for size in SIZES:
        parts = [one[size]["parts_us"] for one in ours.found]
        middle = {part: sorted(p[part] for p in parts)[len(parts) // 2] for part in parts[0]}
        said.append(f"{size} " + " + ".join(f"{part} {us:,.0f}" for part, us in middle.items()))
    return f"\n{OURS} is " + "; ".join(said) + " µs.\n"


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
    head = ["gateway", "first token later by ms", "gap p50 ms, direct / through", "gap p99 ms", "chunks together %"]
    return markdown_table(head, lines) if lines else ""
