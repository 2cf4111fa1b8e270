"""The table of the proof: what is in which row, for the page and for Markdown alike. Pure."""

from collections.abc import Callable
from dataclasses import dataclass

from loadtest.scaling_report.results import AtCount, Results
from loadtest.spread import Spread


@dataclass(frozen=True)
class Row:
    """`cells` one per number of engines; `change` from one engine to the most. `note` says what the row is."""

    what: str
    note: str
    cells: tuple[str, ...]
    change: str = ""


def rows(results: Results, slo: str) -> list[Row]:
    """Those for which anything was measured."""
    at = list(results.counts.values())
    made = [
        _row(
            at,
            "Requests a second, all engines busy",
            "closed loop, so many people per engine",
            lambda a: a.full_rps,
            "{:.2f}",
            times,
        ),
        _row(at, "Efficiency", "T(n) / (n T(1)), each repeat against its own T(1)", lambda a: a.efficiency, "{:.3f}"),
        _row(
            at,
            "Most requests a second under the objective",
            f"open loop, found by search: {slo}",
            lambda a: a.limit_rps,
            "{:.2f}",
            times,
        ),
        _row(
            at,
            "Efficiency under the objective",
            "the same of the row above; as coarse as the search",
            lambda a: a.limit_efficiency,
            "{:.2f}",
        ),
        _row(
            at,
            "Goodput",
            "requests a second that kept the objective, all engines busy",
            lambda a: a.goodput_rps,
            "{:.2f}",
            times,
        ),
        _row(at, "Tokens a second", "of answers, all engines busy", lambda a: a.tokens_per_s, "{:.0f}", times),
        _row(
            at,
            "P50, seconds",
            "whole answer; the same people on any number of engines",
            lambda a: a.same_p50_s,
            "{:.2f}",
            percent,
        ),
        _row(at, "P95, seconds", "as above", lambda a: a.same_p95_s, "{:.2f}", percent),
        _row(at, "P99, seconds", "as above", lambda a: a.same_p99_s, "{:.2f}", percent),
        _row(at, "First token p50, seconds", "the same people", lambda a: a.first_p50_s, "{:.3f}", percent),
        _row(at, "First token p95, seconds", "the same people", lambda a: a.first_p95_s, "{:.3f}", percent),
        _row(at, "Per token p50, ms", "the same people", lambda a: _times(a.token_p50_s, 1e3), "{:.1f}", percent),
        _row(
            at,
            "Videos answered, %",
            "the same people, some with videos",
            lambda a: _times(a.video_success, 100),
            "{:.1f}",
            points,
        ),
        _row(
            at,
            "Out of memory, an hour",
            "engines that died, in that phase",
            lambda a: a.oom_per_hour,
            "{:.0f}",
            percent,
        ),
        Row("Failed requests", "of all, without the phase with videos", tuple(f"{a.errors} of {a.asked}" for a in at)),
        _row(at, "GPU use, %", "all engines busy", lambda a: _times(a.used, 100), "{:.0f}"),
        _row(at, "Balance", "busiest engine's answers over the quietest's; 1 is even", lambda a: a.balance, "{:.2f}"),
    ]
    return [row for row in made if any(cell != "" for cell in row.cells)]


MINUS = "\N{MINUS SIGN}"

Change = Callable[[Spread, Spread], str]


def _row(
    at: list[AtCount],
    what: str,
    note: str,
    value: Callable[[AtCount], Spread | None],
    form: str,
    change: Change | None = None,
) -> Row:
    found = [value(one) for one in at]
    first, last = found[0], found[-1]
    told = change(first, last) if change and first and last and len(at) > 1 else ""
    return Row(what, note, tuple(cell(one, form) for one in found), told)


def cell(spread: Spread | None, form: str) -> str:
    """The median, and in brackets the range of the repeats where it shows."""
    if spread is None:
        return ""
    low, middle, high = (form.format(value) for value in (spread.low, spread.median, spread.high))
    return middle if low == high else f"{middle} ({low} to {high})"


def times(first: Spread, last: Spread) -> str:
    return f"{last.median / first.median:.2f} ×" if first.median else ""


def percent(first: Spread, last: Spread) -> str:
    if not first.median:
        return "" if not last.median else "more"
    return f"{100 * (last.median / first.median - 1):+.0f} %".replace("-", MINUS)


def points(first: Spread, last: Spread) -> str:
    return f"{last.median - first.median:+.1f} points".replace("-", MINUS)


def _times(spread: Spread | None, factor: float) -> Spread | None:
    return Spread(tuple(factor * value for value in spread.values)) if spread else None
