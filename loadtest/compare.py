"""`python -m loadtest.compare A B`: compares two runs and marks the differences that exceed noise.

A run is a folder written by `manyeyes scaling-report` (the spread is that of its repeats) or by `make loadtest` (the run is
split into consecutive parts, and the spread is theirs). A difference is noise if the ranges of the two runs overlap. With
three repeats each, ranges are disjoint by chance in one of ten comparisons; more repeats make that rarer. Parts of a single
run do not contain the variation between runs, so their verdict is weaker; the last line of the output says so.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from loadtest.run import console, read_run
from loadtest.scaling_report import results as lines
from loadtest.scaling_report.results import summarize
from loadtest.statistics import LatencyObjective, RunFigures, Spread, Window, figures, spread

PIECES = 6
MIN_ANSWERS_PER_PIECE = 5


class NotARun(Exception):
    """The folder has no complete run. The message is one sentence."""


@dataclass(frozen=True)
class Difference:
    """One figure of both runs. `better`: +1 if a higher value is better, -1 if a lower value is."""

    figure: str
    a: Spread
    b: Spread
    better: int

    @property
    def noise(self) -> bool:
        return self.a.overlaps(self.b)

    @property
    def change(self) -> float | None:
        """Change of the median, as a fraction of A's median; None if that is 0."""
        return self.b.median / self.a.median - 1 if self.a.median else None

    @property
    def verdict(self) -> str:
        if self.noise:
            return "noise"
        return "better" if (self.b.median > self.a.median) == (self.better > 0) else "worse"


Named = dict[str, tuple[Spread, int]]


def differences(a: Named, b: Named) -> Iterator[Difference]:
    for figure, (value, better) in a.items():
        if figure in b:
            yield Difference(figure, value, b[figure][0], better)


def read_run_folder(folder: Path) -> tuple[str, Named, bool, bool]:
    """Returns (title, figures, whether the spread is of repeats, whether the engines are emulated). Raises NotARun."""
    if (folder / "runs.jsonl").exists():
        return _proof(folder)
    if (folder / "summary.json").exists():
        return _single(folder)
    raise NotARun(
        f"{folder} is not a run: it has neither runs.jsonl (manyeyes scaling-report) nor summary.json (make loadtest)"
    )


def _proof(folder: Path) -> tuple[str, Named, bool, bool]:
    results = summarize(lines.read_good_results(folder / "runs.jsonl"))
    if not results.counts:
        raise NotARun(f"{folder}/runs.jsonl has no complete measurement")
    metadata = orjson.loads((folder / "about.json").read_bytes())
    named: Named = {}
    for count, at in results.counts.items():
        values: tuple[tuple[str, Spread | None, int], ...] = (
            ("requests a second, all busy", at["full_rps"], 1),
            ("efficiency", at["efficiency"] if count > 1 else None, 1),
            ("requests a second under the objective", at["limit_rps"], 1),
            ("p50, s", at["same_p50_s"], -1),
            ("p95, s", at["same_p95_s"], -1),
            ("p99, s", at["same_p99_s"], -1),
            ("first token p50, s", at["first_p50_s"], -1),
            ("first token p95, s", at["first_p95_s"], -1),
            ("per token p50, s", at["token_p50_s"], -1),
            ("videos answered, share", at["video_success"], 1),
        )
        named |= {f"{count}: {figure}": (value, better) for figure, value, better in values if value}
    kind = metadata["kind"]
    return f"{kind['model']} on {kind['gpu']}", named, True, bool(kind["emulated"])


def _single(folder: Path) -> tuple[str, Named, bool, bool]:
    document = orjson.loads((folder / "summary.json").read_bytes())
    ran = read_run(folder)
    start_s, end_s = ran.span
    order = document["about"]["order"]
    slo = LatencyObjective(**order["slo"])
    title = f"{order['scenario']}, {document['about']['shape']}, {order['url']}"
    if not end_s:
        best = float(document.get("search", {}).get("best", 0.0))
        return title, {"highest load within the objective": (Spread((best,)), 1)}, False, False
    start_s += 0.1 * (end_s - start_s)
    pieces = _pieces(start_s, end_s, len(ran.samples))
    each = [figures(ran.samples, piece, slo) for piece in pieces]
    values: tuple[tuple[str, list[float | None], int], ...] = (
        ("requests a second", [piece_figures.rps for piece_figures in each], 1),
        ("goodput, requests a second", [piece_figures.goodput_rps for piece_figures in each], 1),
        ("p50, s", _answered(each, "total_p50_s"), -1),
        ("p95, s", _answered(each, "total_p95_s"), -1),
        ("first token p50, s", _answered(each, "first_p50_s"), -1),
        ("first token p95, s", _answered(each, "first_p95_s"), -1),
        ("per token p50, s", _answered(each, "token_p50_s"), -1),
        (
            "failed, share",
            [piece_figures.failed / max(1, piece_figures.failed + piece_figures.answered) for piece_figures in each],
            -1,
        ),
    )
    figure_spreads = ((figure, spread(value), better) for figure, value, better in values)
    return title, {figure: (value, better) for figure, value, better in figure_spreads if value}, False, False


def _pieces(start_s: float, end_s: float, samples: int) -> list[Window]:
    number = max(2, min(PIECES, samples // MIN_ANSWERS_PER_PIECE))
    each = (end_s - start_s) / number
    return [Window(start_s + n * each, start_s + (n + 1) * each) for n in range(number)]


def _answered(each: Sequence[RunFigures], name: str) -> list[float | None]:
    return [float(getattr(piece_figures, name)) if piece_figures.answered else None for piece_figures in each]


def format_spread(values: Spread) -> str:
    middle, low, high = (f"{number:.3g}" for number in (values.median, values.low, values.high))
    return middle if low == high else f"{middle} ({low} to {high})"


def document(a: Path, b: Path, rows: Sequence[Difference]) -> dict[str, Any]:
    return {
        "a": str(a),
        "b": str(b),
        "rows": [
            {"what": row.figure, "a": row.a.values, "b": row.b.values, "change": row.change, "verdict": row.verdict}
            for row in rows
        ],
    }


def main(arguments: Sequence[str]) -> int:
    p = argparse.ArgumentParser(
        prog="manyeyes compare", description="Compares two runs and marks the differences that exceed noise."
    )
    p.add_argument("a", type=Path)
    p.add_argument("b", type=Path)
    p.add_argument("--json", type=Path, help="also writes the rows to this file")
    p.add_argument(
        "--fail-on-worse", action="store_true", help="exits with code 1 if a figure got worse by more than noise"
    )
    options = p.parse_args(arguments)
    try:
        (title_a, a, repeats_a, emulated_a), (title_b, b, repeats_b, emulated_b) = (
            read_run_folder(options.a),
            read_run_folder(options.b),
        )
    except (NotARun, OSError, KeyError, ValueError) as error:
        console.print(f"  no  {error}")
        return 2
    rows = list(differences(a, b))
    console.print(f"      A  {options.a}: {title_a}{', emulated' if emulated_a else ''}")
    console.print(f"      B  {options.b}: {title_b}{', emulated' if emulated_b else ''}")
    if not rows:
        console.print(
            "  no  the runs have no figure in common. Compare two scaling reports with the same numbers of engines, "
            "or two load tests."
        )
        return 2
    wide = max(len(row.figure) for row in rows)
    for row in rows:
        change = "" if row.change is None else f"{100 * row.change:+.1f} %"
        mark = {"noise": "  ", "better": "ok", "worse": "!!"}[row.verdict]
        console.print(
            f"  {mark}  {row.figure:{wide}}  {format_spread(row.a):>26}  {format_spread(row.b):>26}  {change:>9}  {row.verdict}"
        )
    if not (repeats_a and repeats_b):
        console.print("      The ranges are of parts of a single run. They do not contain the variation between runs.")
    elif min(len(row.a.values) for row in rows) < 3 or min(len(row.b.values) for row in rows) < 3:
        console.print("  !!  Fewer than three repeats: the ranges are not reliable.")
    if options.json:
        options.json.write_bytes(orjson.dumps(document(options.a, options.b, rows), option=orjson.OPT_INDENT_2))
    return 1 if options.fail_on_worse and any(row.verdict == "worse" for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
