"""The proof as Markdown. Pure."""

from typing import Any

from loadtest.scaling_report import published_baseline, wording
from loadtest.scaling_report.results import Results
from loadtest.scaling_report.table import rows


def markdown(about: dict[str, Any], results: Results, slo: str, trouble: str, missed: list[str]) -> str:
    emulated = about["kind"]["emulated"]
    parts = [f"# Scaling proof, {'emulated: ' if emulated else ''}{wording.title(about, results)}", ""]
    parts += [f"**{wording.EMULATED}**", ""] if emulated else []
    parts += [f"> {line}\n" for line in [*wording.warnings(about, results, trouble), *missed]]
    parts += [f"* **{figure}** {what}" for figure, what in wording.headline(results, emulated)]
    heads = [*wording.counts_line(results), "change"]
    parts += ["", "| | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
    parts += [f"| {row.what} | " + " | ".join([*row.cells, row.change]) + " |" for row in rows(results, slo)]
    parts += ["", "What the rows are:", ""]
    parts += [f"* {row.what}: {row.note}." for row in rows(results, slo)]
    parts += ["", "## Share of the answers by engine", ""]
    for at in results.counts.values():
        parts.append(f"* {at.count}: " + ", ".join(f"{name} {share:.1%}" for name, share in at.share.items()))
    parts += [
        "",
        "## Beside a published case",
        "",
        "Published, **not measured here**: " + published_baseline.SETUP + ".",
    ]
    parts += [
        f"[{published_baseline.TITLE}]({published_baseline.SOURCE}), {published_baseline.SEEN} (in Chinese: {published_baseline.ORIGINAL}). {published_baseline.CAVEATS}",
        "",
    ]
    parts += ["| | published, 1 to 3 | measured here" + (" (emulated)" if emulated else "") + " |", "|---|---|---|"]
    parts += [f"| {what} | {there} | {here} |" for what, there, here in wording.beside(results, emulated)]
    parts += ["", "## How", ""]
    parts += [f"* {line}" for line in wording.how(about, results)]
    parts += ["", wording.machine(about) + ".", "", f"    {about['machine']['command']}", ""]
    return "\n".join(parts)
