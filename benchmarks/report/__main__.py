"""`python -m benchmarks.report FOLDER`: writes docs/benchmarks.md and docs/images/benchmarks.svg from raw results."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.report.chart import draw_chart
from benchmarks.report.page import PICTURE, page
from benchmarks.report.results import load
from loadtest.host_info import ROOT


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__)
    parser.add_argument("folder", type=Path, help="of raw results, as `python -m benchmarks` names it")
    parser.add_argument("--docs", type=Path, help="where to write; default docs/, and FOLDER for a quick run")
    asked = parser.parse_args(arguments)
    if not (asked.folder / "about.json").exists():
        print(
            f"{asked.folder} holds no results: about.json is missing. Run `python -m benchmarks --out {asked.folder}` first."
        )
        return 2
    results = load(asked.folder)
    docs = asked.docs or (asked.folder if results.about["quick"] else ROOT / "docs")
    folder = asked.folder.resolve()
    raw = folder.relative_to(ROOT) if folder.is_relative_to(ROOT) else folder.name
    (docs / PICTURE).parent.mkdir(parents=True, exist_ok=True)
    (docs / PICTURE).write_text(draw_chart(results, results.first_engines))
    (docs / "benchmarks.md").write_text(page(results, f"{raw}/runs.jsonl"))
    print(f"{docs / 'benchmarks.md'} and {PICTURE}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
