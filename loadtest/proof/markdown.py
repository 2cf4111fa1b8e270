"""The proof as Markdown. Pure."""

from typing import Any

from loadtest.proof import reference, words
from loadtest.proof.results import Results
from loadtest.proof.table import rows


def markdown(about: dict[str, Any], results: Results, slo: str, trouble: str, missed: list[str]) -> str:
    emulated = about["kind"]["emulated"]
    parts = [f"# Scaling proof, {'emulated: ' if emulated else ''}{words.title(about, results)}", ""]
    parts += [f"**{words.EMULATED}**", ""] if emulated else []
    parts += [f"> {line}\n" for line in [*words.warnings(about, results, trouble), *missed]]
    parts += [f"* **{figure}** {what}" for figure, what in words.headline(results)]
    heads = [*words.counts_line(results), "change"]
    parts += ["", "| | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
    parts += [f"| {row.what} | " + " | ".join([*row.cells, row.change]) + " |" for row in rows(results, slo)]
    parts += ["", "What the rows are:", ""]
    parts += [f"* {row.what}: {row.note}." for row in rows(results, slo)]
    parts += ["", "## Share of the answers by engine", ""]
    for at in results.counts.values():
        parts.append(f"* {at.count}: " + ", ".join(f"{name} {share:.1%}" for name, share in at.share.items()))
    parts += ["", "## Beside a published case", "", "Published, **not measured here**: " + reference.SETUP + "."]
    parts += [
        f"[{reference.TITLE}]({reference.SOURCE}), {reference.SEEN} (in Chinese: {reference.ORIGINAL}). {reference.CAVEATS}",
        "",
    ]
    parts += ["| | published, 1 to 3 | measured here" + (" (emulated)" if emulated else "") + " |", "|---|---|---|"]
    parts += [f"| {what} | {there} | {here} |" for what, there, here in words.beside(results)]
    parts += ["", "## How", ""]
    parts += [f"* {line}" for line in words.how(about, results)]
    parts += ["", words.machine(about) + ".", "", f"    {about['machine']['command']}", ""]
    return "\n".join(parts)
