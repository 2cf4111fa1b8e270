"""Writes proof.html and proof.md from runs.jsonl, each atomically. `python -m loadtest.scaling_report.report FOLDER` repeats it."""

import html
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
from markupsafe import Markup

from loadtest.result_files import write_text
from loadtest.scaling_report import results as measured_lines
from loadtest.scaling_report import wording
from loadtest.scaling_report.results import (
    PhaseResult,
    ScalingResults,
    Thresholds,
    missed_thresholds,
    summarize,
)
from loadtest.scaling_report.wording import report_rows
from loadtest.statistics import LatencyObjective
from manyeyes.charts.svg import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Plot, round_ticks, spread_apart
from manyeyes.charts.templates import markdown_table, render_page

NAME_WIDTH = 64
"""Width of the label of a limit in pixels: `8: 56.5/s`."""


def throughput(results: ScalingResults, emulated: bool) -> str:
    """Chart of requests a second by number of engines: a dot for each repeat, and the line of linear scaling."""
    points = [(count, at.figures["full_rps"]) for count, at in results.counts.items() if at["full_rps"]]
    if not points:
        return ""
    single = points[0][1].median / points[0][0]
    max_count = points[-1][0]
    high = max(single * max_count, *(rps.high for _, rps in points)) * 1.12
    plot = Plot(0, max_count + 0.6, high, "requests a second", "engines", "Requests a second by number of engines")
    plot.line([(0, 0), (max_count + 0.6, single * (max_count + 0.6))], "ideal")
    wide = min(46.0, 0.55 * (plot.x(1) - plot.x(0)))
    for count, rps in points:
        left, top = plot.x(count) - wide / 2, plot.y(rps.median)
        plot.parts.append(
            f'<rect x="{left:.1f}" y="{top:.1f}" width="{wide:.1f}" height="{HEIGHT - BOTTOM - top:.1f}" rx="3" class="bar"/>'
        )
        for value in rps.values:
            plot.dot(count, value, "repeat", 2.4, f"{value:.2f} a second")
        plot.text(plot.x(count), top - 8, f"{rps.median:.1f}", "value")
        plot.tick(count)
    return plot.svg(emulated)


def latency(results: ScalingResults, emulated: bool) -> str:
    """Chart of P50, P95 and P99 of the same users' answers, by number of engines."""
    counts = [at for at in results.counts.values() if at["same_p95_s"]]
    if len(counts) < 2:
        return ""
    max_count = max(at.count for at in counts)
    right = max_count + 0.3 * (max_count - 0.7)  # room for the names of the lines
    high = max(at.figures["same_p99_s"].median for at in counts) * 1.15
    plot = Plot(0.7, right, high, "seconds", "engines", "Time to the complete answer, by number of engines")
    end_labels: list[tuple[float, str, str]] = []
    for name, style in (("p99", "third"), ("p95", "first"), ("p50", "second")):
        points = [(float(at.count), at.figures[f"same_{name}_s"].median) for at in counts]
        plot.line(points, f"line {style}")
        for x, y in points:
            plot.dot(x, y, f"dot {style}", title=f"{name} {y:.2f} s")
        end_labels.append((plot.y(points[-1][1]), f"{name} {points[-1][1]:.2f} s", style))
    for at_y, (_, text, style) in zip(spread_apart([label[0] for label in end_labels], 15), end_labels, strict=True):
        plot.text(plot.x(counts[-1].count) + 9, at_y + 4, text, f"value t-{style}", "start")
    for at in counts:
        plot.tick(at.count)
    return plot.svg(emulated)


def knees(results: ScalingResults, slo_s: float, emulated: bool) -> str:
    """Chart of P95 by arrival rate, for each number of engines, with the highest rate that met the objective."""
    counts = [at for at in results.counts.values() if at.probes]
    if not counts:
        return ""
    right = max(rate for at in counts for rate, _, _ in at.probes) * 1.08
    plot = Plot(0, right, slo_s * 1.6, "p95, seconds", "arrivals a second", "P95 by rate of arrivals")
    plot.line([(0, slo_s), (right, slo_s)], "slo")
    plot.text(WIDTH - RIGHT, plot.y(slo_s) + 15, f"objective {slo_s:g} s", "label", "end")
    names: list[tuple[float, str, str]] = []
    for number, at in enumerate(counts):
        style = ("second", "third", "first")[max(0, 3 - len(counts)) :][number % 3] if len(counts) <= 3 else "first"
        for rate, p95_s, is_met in sorted(at.probes):
            title = f"{at.count} engine(s), {rate:.2f} a second: p95 {p95_s:.2f} s, {'met' if is_met else 'missed'}"
            plot.dot(rate, p95_s or slo_s * 1.6, f"dot {style}" if is_met else f"ring {style}", 3.6, title)
        if (limit := at["limit_rps"]) and limit.median:
            plot.line([(limit.median, 0), (limit.median, plot.y_high)], f"limit l-{style}")
            names.append((plot.x(limit.median), f"{at.count}: {limit.median:.1f}/s", style))
    names.sort(reverse=True)  # from right to left, because the rightmost label must stay inside the chart
    places = spread_apart([-min(x, WIDTH - RIGHT - 34) for x, _, _ in names], NAME_WIDTH)
    for left, (_, name, style) in zip(places, names, strict=True):
        plot.text(-left, TOP - 3, name, f"value t-{style}")
    for value in round_ticks(right):
        plot.tick(value)
    return plot.svg(emulated)


def shares(results: ScalingResults, emulated: bool) -> str:
    """Chart of each engine's share of the answers: one bar for each number of engines."""
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


def page(
    metadata: dict[str, Any], results: ScalingResults, slo: str, slo_s: float, problem: str, missed: list[str]
) -> str:
    emulated = bool(metadata["kind"]["emulated"])
    return render_page(
        Path(__file__).with_name("report.html.j2"),
        title=wording.report_title(metadata, results),
        emulated=emulated,
        emulated_notice=wording.EMULATED_NOTICE,
        alarms=[*wording.warnings(metadata, results, problem), *missed],
        cards=wording.headline(results, emulated),
        charts=_charts(results, slo_s, emulated),
        heads=[*wording.counts_line(results), "change"],
        rows=[
            {"label": row.label, "note": row.note, "cells": map(_split_cell, row.cells), "change": row.change}
            for row in report_rows(results, slo)
        ],
        comparison=wording.baseline_comparison(results, emulated),
        baseline=wording,
        method=wording.method_lines(metadata, results),
        machine=wording.machine_line(metadata),
        command=metadata["machine"]["command"],
    )


def _charts(results: ScalingResults, slo_s: float, emulated: bool) -> list[tuple[str, str, Markup]]:
    return [
        (
            "Throughput",
            "Requests a second with all engines busy. The line is linear scaling from one engine. Dots are repeats.",
            Markup(throughput(results, emulated)),
        ),
        (
            "Latency for the same users",
            "Time to the complete answer, for as many users as one engine had.",
            Markup(latency(results, emulated)),
        ),
        (
            "Capacity",
            "Users arrive at random. Filled dots met the objective, rings missed it. The labels on top show the number of "
            "engines and the highest rate that met the objective.",
            Markup(knees(results, slo_s, emulated)),
        ),
        (
            "Distribution",
            "Share of the answers by engine, for each number of engines.",
            Markup(shares(results, emulated)),
        ),
    ]


def _split_cell(text: str) -> tuple[str, str]:
    """Splits a cell into the median and the range of the repeats, which is shown below it in small type."""
    middle, _, spread = text.partition(" (")
    return middle, spread.rstrip(")")


def markdown(metadata: dict[str, Any], results: ScalingResults, slo: str, problem: str, missed: list[str]) -> str:
    emulated = metadata["kind"]["emulated"]
    rows = report_rows(results, slo)
    shares = [
        f"* {at.count}: " + ", ".join(f"{name} {share:.1%}" for name, share in at.share.items())
        for at in results.counts.values()
    ]
    source = f"[{wording.BASELINE_TITLE}]({wording.BASELINE_SOURCE}), {wording.BASELINE_SEEN}"
    here = "measured here" + (" (emulated)" if emulated else "")
    parts = [
        f"# Scaling proof, {'emulated: ' if emulated else ''}{wording.report_title(metadata, results)}\n",
        *([f"**{wording.EMULATED_NOTICE}**\n"] if emulated else []),
        *(f"> {line}\n" for line in [*wording.warnings(metadata, results, problem), *missed]),
        *(f"* **{figure}** {caption}" for figure, caption in wording.headline(results, emulated)),
        "",
        markdown_table(
            ["", *wording.counts_line(results), "change"], [(row.label, *row.cells, row.change) for row in rows]
        ),
        "Meaning of the rows:\n",
        *(f"* {row.label}: {row.note}." for row in rows),
        "\n## Share of the answers by engine\n",
        *shares,
        "\n## Comparison with a published case\n",
        f"Published, **not measured here**: {wording.BASELINE_SETUP}.",
        f"{source} (in Chinese: {wording.BASELINE_ORIGINAL}). {wording.BASELINE_CAVEATS}\n",
        markdown_table(["", "published, 1 to 3", here], wording.baseline_comparison(results, emulated)),
        "## How it was measured\n",
        *(f"* {line}" for line in wording.method_lines(metadata, results)),
        f"\n{wording.machine_line(metadata)}.\n",
        f"    {metadata['machine']['command']}\n",
    ]
    return "\n".join(parts)


def write(
    out: Path, metadata: dict[str, Any], measured: Sequence[PhaseResult], problem: str, thresholds: Thresholds
) -> list[str]:
    """Writes both reports. Returns a sentence for each threshold that was missed. Raises OSError."""
    results = summarize(measured)
    slo = LatencyObjective(**metadata["work"]["slo"])
    short_of = missed_thresholds(results, thresholds)
    write_text(out / "proof.html", page(metadata, results, str(slo), slo.total_s, problem, short_of))
    write_text(out / "proof.md", markdown(metadata, results, str(slo), problem, short_of))
    return short_of


def short(result: PhaseResult) -> str:
    if result.trouble:
        return f"{result.phase}: {result.trouble}"
    if result.phase == "limit":
        return f"limit: {result.limit_rps:.2f} requests a second under the objective, in {len(result.probes)} probes"
    seen = result.figures
    text = f"{result.phase}: {seen.rps:.2f} requests a second, p95 {seen.total_p95_s:.2f} s, first token p50 {seen.first_p50_s:.2f} s"
    if result.phase == "video" and seen.video_success is not None:
        text += f", {seen.video_success:.0%} of {seen.videos} videos, {result.died} out of memory"
    if seen.failed:
        text += f", {seen.failed} failed"
    used = f", GPUs {sum(result.used.values()) / len(result.used):.0%} busy" if result.used else ""
    return f"{text}{used}; generator {result.cpu_p95:.0%} of a core, machine {result.machine_share:.0%}"


def main(arguments: Sequence[str]) -> int:
    for folder in map(Path, arguments):
        metadata = orjson.loads((folder / "about.json").read_bytes())
        write(folder, metadata, measured_lines.read_good_results(folder / "runs.jsonl"), "", Thresholds())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
