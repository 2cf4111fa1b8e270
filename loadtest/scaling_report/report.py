"""Writes proof.html and proof.md from runs.jsonl: whole or not at all. `python -m loadtest.scaling_report.report FOLDER` does it anew."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson

from loadtest.scaling_report import sample as measured_lines
from loadtest.scaling_report.markdown import markdown
from loadtest.scaling_report.page import page
from loadtest.scaling_report.results import results
from loadtest.scaling_report.sample import Measured
from loadtest.scaling_report.verdict import Thresholds, missed
from loadtest.slo import Slo


def write(
    out: Path, about: dict[str, Any], measured: Sequence[Measured], trouble: str, thresholds: Thresholds
) -> list[str]:
    """Returns a sentence for each threshold that was missed. Raises OSError."""
    found = results(measured)
    slo = Slo(**about["work"]["slo"])
    short_of = missed(found, thresholds)
    _put(out / "proof.html", page(about, found, str(slo), slo.total_s, trouble, short_of))
    _put(out / "proof.md", markdown(about, found, str(slo), trouble, short_of))
    return short_of


def _put(file: Path, text: str) -> None:
    part = file.with_suffix(".part")
    part.write_text(text)
    part.replace(file)


def short(one: Measured) -> str:
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
        write(folder, about, measured_lines.good(folder / "runs.jsonl"), "", Thresholds())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
