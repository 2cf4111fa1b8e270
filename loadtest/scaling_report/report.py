"""Writes proof.html and proof.md from runs.jsonl: whole or not at all. `python -m loadtest.scaling_report.report FOLDER` does it anew."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
from markupsafe import Markup

from loadtest.sample import LatencyObjective
from loadtest.scaling_report import charts, wording
from loadtest.scaling_report import phases as measured_lines
from loadtest.scaling_report.phases import PhaseResult
from loadtest.scaling_report.results import ScalingResults, Thresholds, missed_thresholds, summarize
from loadtest.scaling_report.wording import report_rows
from manyeyes.charts.templates import render_page


def page(
    about: dict[str, Any], results: ScalingResults, slo: str, slo_s: float, trouble: str, missed: list[str]
) -> str:
    emulated = bool(about["kind"]["emulated"])
    return render_page(
        Path(__file__).with_name("report.html.j2"),
        title=wording.report_title(about, results),
        emulated=emulated,
        emulated_notice=wording.EMULATED_NOTICE,
        alarms=[*wording.warnings(about, results, trouble), *missed],
        cards=wording.headline(results, emulated),
        charts=_charts(results, slo_s, emulated),
        heads=[*wording.counts_line(results), "change"],
        rows=[
            {"what": row.what, "note": row.note, "cells": map(_split_cell, row.cells), "change": row.change}
            for row in report_rows(results, slo)
        ],
        comparison=wording.baseline_comparison(results, emulated),
        baseline=wording,
        method=wording.method_lines(about, results),
        machine=wording.machine_line(about),
        command=about["machine"]["command"],
    )


def _charts(results: ScalingResults, slo_s: float, emulated: bool) -> list[tuple[str, str, Markup]]:
    """(name, what it shows, SVG or nothing)"""
    return [
        (
            "What more engines do",
            "Requests a second with all engines busy; the line is one engine's, times their number. Dots are repeats.",
            Markup(charts.throughput(results, emulated)),
        ),
        (
            "What the same people feel",
            "Time to the whole answer for as many people as one engine had.",
            Markup(charts.latency(results, emulated)),
        ),
        (
            "Where each of them bends",
            "People arrive at random. Filled: the objective was kept; rings: missed. On top: engines, and the most that kept it.",
            Markup(charts.knees(results, slo_s, emulated)),
        ),
        (
            "Who did the work",
            "Share of the answers by engine, for each number of engines.",
            Markup(charts.shares(results, emulated)),
        ),
    ]


def _split_cell(text: str) -> tuple[str, str]:
    """The median, and the range of the repeats, which stands in small under it."""
    middle, _, spread = text.partition(" (")
    return middle, spread.rstrip(")")


def markdown(about: dict[str, Any], results: ScalingResults, slo: str, trouble: str, missed: list[str]) -> str:
    emulated = about["kind"]["emulated"]
    parts = [f"# Scaling proof, {'emulated: ' if emulated else ''}{wording.report_title(about, results)}", ""]
    parts += [f"**{wording.EMULATED_NOTICE}**", ""] if emulated else []
    parts += [f"> {line}\n" for line in [*wording.warnings(about, results, trouble), *missed]]
    parts += [f"* **{figure}** {what}" for figure, what in wording.headline(results, emulated)]
    heads = [*wording.counts_line(results), "change"]
    parts += ["", "| | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
    parts += [f"| {row.what} | " + " | ".join([*row.cells, row.change]) + " |" for row in report_rows(results, slo)]
    parts += ["", "What the rows are:", ""]
    parts += [f"* {row.what}: {row.note}." for row in report_rows(results, slo)]
    parts += ["", "## Share of the answers by engine", ""]
    for at in results.counts.values():
        parts.append(f"* {at.count}: " + ", ".join(f"{name} {share:.1%}" for name, share in at.share.items()))
    parts += [
        "",
        "## Beside a published case",
        "",
        "Published, **not measured here**: " + wording.BASELINE_SETUP + ".",
    ]
    parts += [
        f"[{wording.BASELINE_TITLE}]({wording.BASELINE_SOURCE}), {wording.BASELINE_SEEN} (in Chinese: {wording.BASELINE_ORIGINAL}). {wording.BASELINE_CAVEATS}",
        "",
    ]
    parts += ["| | published, 1 to 3 | measured here" + (" (emulated)" if emulated else "") + " |", "|---|---|---|"]
    parts += [f"| {what} | {there} | {here} |" for what, there, here in wording.baseline_comparison(results, emulated)]
    parts += ["", "## How", ""]
    parts += [f"* {line}" for line in wording.method_lines(about, results)]
    parts += ["", wording.machine_line(about) + ".", "", f"    {about['machine']['command']}", ""]
    return "\n".join(parts)


def write(
    out: Path, about: dict[str, Any], measured: Sequence[PhaseResult], trouble: str, thresholds: Thresholds
) -> list[str]:
    """Returns a sentence for each threshold that was missed. Raises OSError."""
    found = summarize(measured)
    slo = LatencyObjective(**about["work"]["slo"])
    short_of = missed_thresholds(found, thresholds)
    _put(out / "proof.html", page(about, found, str(slo), slo.total_s, trouble, short_of))
    _put(out / "proof.md", markdown(about, found, str(slo), trouble, short_of))
    return short_of


def _put(file: Path, text: str) -> None:
    part = file.with_suffix(".part")
    part.write_text(text)
    part.replace(file)


def short(one: PhaseResult) -> str:
    """A phase in one line."""
    if one.trouble:
        return f"{one.phase}: {one.trouble}"
    if one.phase == "limit":
        return f"limit: {one.limit_rps:.2f} requests a second under the objective, in {len(one.probes)} probes"
    seen = one.figures
    text = f"{one.phase}: {seen.rps:.2f} requests a second, p95 {seen.total_p95_s:.2f} s, first token p50 {seen.first_p50_s:.2f} s"
    if one.phase == "video" and seen.video_success is not None:
        text += f", {seen.video_success:.0%} of {seen.videos} videos, {one.died} out of memory"
    if seen.failed:
        text += f", {seen.failed} failed"
    used = f", GPUs {sum(one.used.values()) / len(one.used):.0%} busy" if one.used else ""
    return f"{text}{used}; generator {one.cpu_p95:.0%} of a core, machine {one.machine_share:.0%}"


def main(arguments: Sequence[str]) -> int:
    for folder in map(Path, arguments):
        about = orjson.loads((folder / "about.json").read_bytes())
        write(folder, about, measured_lines.read_good_results(folder / "runs.jsonl"), "", Thresholds())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
