"""Rows, sentences and the published baseline of the HTML and Markdown reports. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from loadtest.scaling_report.results import EngineCountResult, ScalingResults
from loadtest.statistics import Spread


@dataclass(frozen=True)
class ReportRow:
    """A row of the table. `cells`: one for each number of engines. `change`: from one engine to the most.

    `note` explains the row.
    """

    label: str
    note: str
    cells: tuple[str, ...]
    change: str = ""


MINUS = "\N{MINUS SIGN}"

Change = Callable[[Spread, Spread], str]


def report_rows(results: ScalingResults, slo: str) -> list[ReportRow]:
    at = list(results.counts.values())
    made = []
    for label, note, name, factor, form, change in ROWS:
        figures = [_figure(count_result, name, factor) for count_result in at]
        first, last = figures[0], figures[-1]
        changed = change(first, last) if change and first and last and len(at) > 1 else ""
        made.append(
            ReportRow(label, note.format(slo=slo), tuple(format_cell(figure, form) for figure in figures), changed)
        )
    failed = tuple(f"{a.errors} of {a.requests}" for a in at)
    made.insert(-2, ReportRow("Failed requests", "of all requests outside the video phase", failed))
    return [row for row in made if any(cell != "" for cell in row.cells)]


def _figure(at: EngineCountResult, name: str, factor: float = 1) -> Spread | None:
    spread = at[name]
    return Spread(tuple(factor * value for value in spread.values)) if spread else None


def format_cell(spread: Spread | None, form: str) -> str:
    """The median, followed by the range of the repeats in parentheses if it is not zero after rounding."""
    if spread is None:
        return ""
    low, middle, high = (form.format(value) for value in (spread.low, spread.median, spread.high))
    return middle if low == high else f"{middle} ({low} to {high})"


def format_ratio(first: Spread, last: Spread) -> str:
    return f"{last.median / first.median:.2f} ×" if first.median else ""


def format_percent_change(first: Spread, last: Spread) -> str:
    if not first.median:
        return "" if not last.median else "more"
    return f"{100 * (last.median / first.median - 1):+.0f} %".replace("-", MINUS)


def format_point_change(first: Spread, last: Spread) -> str:
    return f"{last.median - first.median:+.1f} points".replace("-", MINUS)


SAME = "the same users"
RATIO, PERCENT, POINTS = format_ratio, format_percent_change, format_point_change
ROWS: tuple[tuple[str, str, str, float, str, Change | None], ...] = (
    (
        "Requests a second, all engines busy",
        "closed loop, a fixed number of users per engine",
        "full_rps",
        1,
        "{:.2f}",
        RATIO,
    ),
    ("Efficiency", "T(n) / (n T(1)), each repeat relative to its own T(1)", "efficiency", 1, "{:.3f}", None),
    (
        "Most requests a second under the objective",
        "open loop, found by search: {slo}",
        "limit_rps",
        1,
        "{:.2f}",
        RATIO,
    ),
    (
        "Efficiency under the objective",
        "efficiency of the row above; limited by the precision of the search",
        "limit_efficiency",
        1,
        "{:.2f}",
        None,
    ),
    ("Goodput", "requests a second that met the objective, all engines busy", "goodput_rps", 1, "{:.2f}", RATIO),
    ("Tokens a second", "of answers, all engines busy", "tokens_per_s", 1, "{:.0f}", RATIO),
    ("P50, seconds", "complete answer; the same users on any number of engines", "same_p50_s", 1, "{:.2f}", PERCENT),
    ("P95, seconds", "as above", "same_p95_s", 1, "{:.2f}", PERCENT),
    ("P99, seconds", "as above", "same_p99_s", 1, "{:.2f}", PERCENT),
    ("First token p50, seconds", SAME, "first_p50_s", 1, "{:.3f}", PERCENT),
    ("First token p95, seconds", SAME, "first_p95_s", 1, "{:.3f}", PERCENT),
    ("Per token p50, ms", SAME, "token_p50_s", 1e3, "{:.1f}", PERCENT),
    ("Videos answered, %", "the same users, some with videos", "video_success", 100, "{:.1f}", POINTS),
    ("Out of memory, an hour", "engines that crashed in the video phase", "oom_per_hour", 1, "{:.0f}", PERCENT),
    ("GPU use, %", "all engines busy", "used", 100, "{:.0f}", None),
    (
        "Balance",
        "answers of the busiest engine divided by those of the least busy; 1 is even",
        "balance",
        1,
        "{:.2f}",
        None,
    ),
)
"""Title and note of each row, its figure and factor, and the formats of the value and of the change."""


BASELINE_TITLE = "Load balancing Qwen3-VL-WEBUI: several instances, a practical case"
BASELINE_ORIGINAL = "Qwen3-VL-WEBUI负载均衡:多实例部署优化实战案例"
BASELINE_SOURCE = "http://www.0539edu.com/news/741287"
BASELINE_SEEN = "a blog article, in a copy dated 2026-01-22"
BASELINE_SETUP = "three instances of Qwen3-VL-4B-Instruct on RTX 4090 D cards behind Nginx, load by Locust"
BASELINE_CAVEATS = (
    "It does not state the sizes of images and videos, the lengths of answers or the repeats, so its absolute figures "
    "cannot be compared with other measurements. More than three times the requests from three instances is plausible: "
    "if waiting time is limited, users who arrive at random find a free engine sooner among several than with a single one."
)


@dataclass(frozen=True)
class BaselineRow:
    """A published figure before and after, and the figure of `ROWS` to compare it with."""

    label: str
    one_engine: str
    three_engines: str
    change: str
    name: str
    form: str
    format_change: Change | None
    factor: float = 1
    is_of_videos: bool = False


BASELINE_ROWS = (
    BaselineRow("Most requests a second", "3.2", "11.8", "3.69 ×", "limit_rps", "{:.1f} to {:.1f}", RATIO),
    BaselineRow("P95 of the answers", "4.8 s", "1.9 s", "−60 %", "same_p95_s", "{:.1f} s to {:.1f} s", PERCENT),
    BaselineRow(
        "Videos answered", "82 %", "98.7 %", "+16.7 points", "video_success", "{:.1f} % to {:.1f} %", POINTS, 100, True
    ),
    BaselineRow(
        "Out of memory", "12 an hour", "0", "−100 %", "oom_per_hour", "{:.0f} an hour to {:.0f}", None, 1, True
    ),
)


EMULATED_NOTICE = (
    "Emulated: no GPU took part. The engines are emulated with the timing of the named card and model (a profile of published "
    "figures and estimates); gateway, controller and load generator are real. The report shows that nothing between users and "
    "engines limits the throughput of several engines. It does not show what a real card achieves."
)


def report_title(metadata: dict[str, Any], results: ScalingResults) -> str:
    max_count = max(results.counts)
    engines = f"1 to {max_count} engines" if max_count > 1 else "1 engine"
    return f"{engines}: {metadata['kind']['model']} on {metadata['kind']['gpu']}"


def headline(results: ScalingResults, emulated: bool) -> list[tuple[str, str]]:
    """Key figures with captions. Videos are left out for emulated engines, whose memory limit is set and not measured."""
    counts = list(results.counts.values())
    first, last = counts[0], counts[-1]
    rps, p95, limit, video = (
        (first[name], last[name]) for name in ("full_rps", "same_p95_s", "limit_rps", "video_success")
    )
    if len(counts) < 2:
        return [(f"{rps[0].median:.1f}", "requests a second from one engine")] if rps[0] else []
    key_figures = []
    if rps[0] and rps[1]:
        key_figures.append(
            (format_ratio(rps[0], rps[1]), f"the requests a second, with {last.count} engines instead of one")
        )
    if efficiency := last["efficiency"]:
        key_figures.append((f"{100 * efficiency.median:.1f} %", f"scaling efficiency with {last.count} engines"))
    if p95[0] and p95[1]:
        felt = f"p95 for the same users: {p95[0].median:.1f} s to {p95[1].median:.1f} s"
        key_figures.append((format_percent_change(p95[0], p95[1]), felt))
    if limit[0] and limit[1] and limit[0].median:
        arrivals = f"{limit[0].median:.1f} to {limit[1].median:.1f} arrivals a second"
        key_figures.append((format_ratio(limit[0], limit[1]), f"load within the objective: {arrivals}"))
    if video[0] and video[1] and not emulated:
        baseline = f"{100 * video[0].median:.1f} % on one engine"
        key_figures.append((f"{100 * video[1].median:.1f} %", f"of videos answered, {baseline}"))
    return key_figures


def baseline_comparison(results: ScalingResults, emulated: bool) -> list[tuple[str, str, str]]:
    """Rows (what, published, measured here) of the comparison; measured here from one engine to three, or to the most."""
    first, last = results.counts.get(1), results.counts.get(3) or results.counts[max(results.counts)]
    limit = "; memory limit set, not measured" if emulated else ""
    rows = []
    for row in BASELINE_ROWS:
        here = "not measured"
        if first and first.count != last.count:
            single, multiple = _figure(first, row.name, row.factor), _figure(last, row.name, row.factor)
            change = row.format_change(single, multiple) if single and multiple and row.format_change else ""
            if single and multiple and (change or not row.format_change):
                here = row.form.format(single.median, multiple.median) + (f", {change}" if change else "")
                here += limit if row.is_of_videos else ""
        rows.append((row.label, f"{row.one_engine} to {row.three_engines}, {row.change}", here))
    return rows


def warnings(metadata: dict[str, Any], results: ScalingResults, problem: str) -> list[str]:
    """What a reader must know before using a figure."""
    sentences = []
    if problem:
        sentences.append(f"Partial: {problem}. The figures cover what was measured until then.")
    if results.generator_was_limit:
        sentences.append(
            "The load generator was the limit in "
            + "; ".join(results.generator_was_limit[:6])
            + (" and others" if len(results.generator_was_limit) > 6 else "")
            + ": the engines can do more than those figures show."
        )
    if results.machine_share > 0.9:
        sentences.append(
            f"The machine was {results.machine_share:.0%} busy in its busiest phase: "
            + (
                "emulated engines may have been delayed. Slow their clock (--speed) and compare."
                if metadata["kind"]["emulated"]
                else "engines on its CPU cores and the load generator competed for CPU time."
            )
        )
    fewest = min(at.repeats for at in results.counts.values())
    if fewest < 3:
        sentences.append(f"Only {fewest} repeat{'s' if fewest > 1 else ''}: too few to show a spread.")
    return sentences


def method_lines(metadata: dict[str, Any], results: ScalingResults) -> list[str]:
    work, kind = metadata["work"], metadata["kind"]
    people = work["users_per_engine"]
    speed = metadata["kind"]["about"].get("speed", 1.0)
    lines = [
        f"All engines busy: {people} users for each engine, scenario {work['scenario']}, seed {work['seed']}, "
        f"{work['full_s']:g} s after {work['full_settle_s']:g} s of settling.",
        f"The same users: {people} users on any number of engines, {work['same_s']:g} s.",
        f"Within the objective: random arrivals (Poisson), a search in at most {work['most_probes']} probes of {work['probe_s']:g} s, "
        f"to a precision of {work['probe_precision']:.0%}.",
        f"With videos: {work['video_users']} users ({work['video_scenario']}), {work['video_s']:g} s.",
        (
            "Engines that were running before keep their caches; each repeat has different questions. All engines are warmed up"
            if kind["name"] == "compose"
            else "The engines are started again for each visit, with cold caches, and warmed up"
        )
        + "; each repeat measures all numbers of engines once and starts with a different number. "
        "Cells are medians with the range of the repeats.",
        "An answer counts if its stream ended with the end marker, at least one token arrived, and it was not cut off.",
        f"Load generator: Locust, busiest process {results.cpu_p95:.0%} of a core (95th percentile over all seconds); "
        f"the machine was {results.machine_share:.0%} busy in its busiest phase.",
    ]
    searched = min((len(limit.values) for at in results.counts.values() if (limit := at["limit_rps"])), default=0)
    if 0 < searched < min(at.repeats for at in results.counts.values()):
        lines.append(f"The search ran in {searched} of the repeats only, so its row has no spread.")
    if kind["emulated"] and "frames_together" in kind["about"]:
        lines.append(
            f"In the video phase an emulated engine crashes when more than {kind['about']['frames_together']} frames wait for their "
            "first token at the same time, and restarts after 12 s. This limit is set, not measured: it shows the effect of "
            "distributing videos over engines, not how many frames fit."
        )
    if speed != 1:
        lines.append(
            f"Emulated time ran at {speed:g} of the wall clock, so that neither this machine nor the load generator is the limit; "
            "every figure here is in emulated seconds."
        )
    return lines


def machine_line(metadata: dict[str, Any]) -> str:
    machine = metadata["machine"]
    return f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, {machine['system']}; commit {machine['commit']}, {machine['date']}"


def counts_line(results: ScalingResults) -> Sequence[str]:
    return [f"{count} engine{'s' if count > 1 else ''}" for count in results.counts]
