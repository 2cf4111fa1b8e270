"""The rows, sentences and the published case that the page and the Markdown share. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from loadtest.scaling_report.results import EngineCountResult, ScalingResults
from loadtest.statistics import Spread


@dataclass(frozen=True)
class ReportRow:
    """`cells` one per number of engines; `change` from one engine to the most. `note` says what the row is."""

    what: str
    note: str
    cells: tuple[str, ...]
    change: str = ""


def report_rows(results: ScalingResults, slo: str) -> list[ReportRow]:
    """Those for which anything was measured."""
    at = list(results.counts.values())
    made = [
        _row(
            at,
            "Requests a second, all engines busy",
            "closed loop, so many people per engine",
            lambda a: a.full_rps,
            "{:.2f}",
            format_ratio,
        ),
        _row(at, "Efficiency", "T(n) / (n T(1)), each repeat against its own T(1)", lambda a: a.efficiency, "{:.3f}"),
        _row(
            at,
            "Most requests a second under the objective",
            f"open loop, found by search: {slo}",
            lambda a: a.limit_rps,
            "{:.2f}",
            format_ratio,
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
            format_ratio,
        ),
        _row(at, "Tokens a second", "of answers, all engines busy", lambda a: a.tokens_per_s, "{:.0f}", format_ratio),
        _row(
            at,
            "P50, seconds",
            "whole answer; the same people on any number of engines",
            lambda a: a.same_p50_s,
            "{:.2f}",
            format_percent_change,
        ),
        _row(at, "P95, seconds", "as above", lambda a: a.same_p95_s, "{:.2f}", format_percent_change),
        _row(at, "P99, seconds", "as above", lambda a: a.same_p99_s, "{:.2f}", format_percent_change),
        _row(
            at, "First token p50, seconds", "the same people", lambda a: a.first_p50_s, "{:.3f}", format_percent_change
        ),
        _row(
            at, "First token p95, seconds", "the same people", lambda a: a.first_p95_s, "{:.3f}", format_percent_change
        ),
        _row(
            at,
            "Per token p50, ms",
            "the same people",
            lambda a: _scaled(a.token_p50_s, 1e3),
            "{:.1f}",
            format_percent_change,
        ),
        _row(
            at,
            "Videos answered, %",
            "the same people, some with videos",
            lambda a: _scaled(a.video_success, 100),
            "{:.1f}",
            format_point_change,
        ),
        _row(
            at,
            "Out of memory, an hour",
            "engines that died, in that phase",
            lambda a: a.oom_per_hour,
            "{:.0f}",
            format_percent_change,
        ),
        ReportRow(
            "Failed requests", "of all, without the phase with videos", tuple(f"{a.errors} of {a.asked}" for a in at)
        ),
        _row(at, "GPU use, %", "all engines busy", lambda a: _scaled(a.used, 100), "{:.0f}"),
        _row(at, "Balance", "busiest engine's answers over the quietest's; 1 is even", lambda a: a.balance, "{:.2f}"),
    ]
    return [row for row in made if any(cell != "" for cell in row.cells)]


MINUS = "\N{MINUS SIGN}"

Change = Callable[[Spread, Spread], str]


def _row(
    at: list[EngineCountResult],
    what: str,
    note: str,
    value: Callable[[EngineCountResult], Spread | None],
    form: str,
    change: Change | None = None,
) -> ReportRow:
    found = [value(one) for one in at]
    first, last = found[0], found[-1]
    on_result = change(first, last) if change and first and last and len(at) > 1 else ""
    return ReportRow(what, note, tuple(format_cell(one, form) for one in found), on_result)


def format_cell(spread: Spread | None, form: str) -> str:
    """The median, and in brackets the range of the repeats where it shows."""
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


def _scaled(spread: Spread | None, factor: float) -> Spread | None:
    return Spread(tuple(factor * value for value in spread.values)) if spread else None


BASELINE_TITLE = "Load balancing Qwen3-VL-WEBUI: several instances, a practical case"
BASELINE_ORIGINAL = "Qwen3-VL-WEBUI负载均衡:多实例部署优化实战案例"
BASELINE_SOURCE = "http://www.0539edu.com/news/741287"
BASELINE_SEEN = "a blog article, in a copy dated 2026-01-22"
BASELINE_SETUP = "three instances of Qwen3-VL-4B-Instruct on RTX 4090 D cards behind Nginx, load by Locust"
BASELINE_CAVEATS = (
    "It names neither the sizes of pictures and videos nor the lengths of answers nor repeats, so its absolute figures "
    "cannot be compared with any others. More than three times the requests from three instances is no contradiction: "
    "where waiting is limited, people who arrive at random find one of several engines free sooner than the only one."
)


@dataclass(frozen=True)
class BaselineRow:
    """Before and after, as published."""

    what: str
    one: str
    three: str
    change: str


BASELINE_ROWS = (
    BaselineRow("Most requests a second", "3.2", "11.8", "3.69 ×"),
    BaselineRow("P95 of the answers", "4.8 s", "1.9 s", "−60 %"),
    BaselineRow("Videos answered", "82 %", "98.7 %", "+16.7 points"),
    BaselineRow("Out of memory", "12 an hour", "0", "−100 %"),
)


EMULATED_NOTICE = (
    "Emulated: no GPU took part. The engines are stand-ins with the timing of the named card and model (a profile of published "
    "figures and estimates); gateway, controller and load generator are the real ones. What this shows is that nothing between "
    "people and engines keeps more engines from doing more work. What a card really does, only a card can show."
)


def report_title(about: dict[str, Any], results: ScalingResults) -> str:
    most = max(results.counts)
    engines = f"1 to {most} engines" if most > 1 else "1 engine"
    return f"{engines}: {about['kind']['model']} on {about['kind']['gpu']}"


def headline(results: ScalingResults, emulated: bool) -> list[tuple[str, str]]:
    """Big figure and what it says. Videos are not among them where the limit of memory is set and not measured."""
    counts = list(results.counts.values())
    first, last = counts[0], counts[-1]
    found = []
    if len(counts) < 2:
        return [(f"{first.full_rps.median:.1f}", "requests a second from one engine")] if first.full_rps else []
    if first.full_rps and last.full_rps:
        found.append(
            (format_ratio(first.full_rps, last.full_rps), f"the requests, from {last.count} engines instead of one")
        )
    if last.efficiency:
        found.append(
            (f"{100 * last.efficiency.median:.1f} %", f"of {last.count} times one engine: the scaling efficiency")
        )
    if first.same_p95_s and last.same_p95_s:
        found.append((format_percent_change(first.same_p95_s, last.same_p95_s), _latency_headline(first, last)))
    if first.limit_rps and last.limit_rps and first.limit_rps.median:
        arrivals = f"{first.limit_rps.median:.1f} to {last.limit_rps.median:.1f} arrivals a second"
        found.append((format_ratio(first.limit_rps, last.limit_rps), f"under the objective: {arrivals}"))
    if first.video_success and last.video_success and not emulated:
        one = f"{100 * first.video_success.median:.1f} % on one engine"
        found.append((f"{100 * last.video_success.median:.1f} %", f"of videos answered, {one}"))
    return found


def _latency_headline(first: EngineCountResult, last: EngineCountResult) -> str:
    assert first.same_p95_s
    assert last.same_p95_s
    return f"p95 for the same people: {first.same_p95_s.median:.1f} s to {last.same_p95_s.median:.1f} s"


def baseline_comparison(results: ScalingResults, emulated: bool) -> list[tuple[str, str, str]]:
    """(what, published, measured here) for the reference's table; here from one engine to three, or to the most."""
    counts = results.counts
    first = counts.get(1)
    last = counts.get(3) or counts[max(counts)]
    here = {row.what: "not measured" for row in BASELINE_ROWS}
    limit = "; at a limit that is set" if emulated else ""
    if first and first.count != last.count:
        rps = (first.limit_rps, last.limit_rps)
        if rps[0] and rps[1] and rps[0].median:
            here["Most requests a second"] = (
                f"{rps[0].median:.1f} to {rps[1].median:.1f}, {format_ratio(rps[0], rps[1])}"
            )
        if first.same_p95_s and last.same_p95_s:
            change = format_percent_change(first.same_p95_s, last.same_p95_s)
            here["P95 of the answers"] = f"{first.same_p95_s.median:.1f} s to {last.same_p95_s.median:.1f} s, {change}"
        video = (first.video_success, last.video_success)
        if video[0] and video[1]:
            change = format_point_change(_hundred(video[0]), _hundred(video[1]))
            here["Videos answered"] = f"{100 * video[0].median:.1f} % to {100 * video[1].median:.1f} %, {change}{limit}"
        oom = (first.oom_per_hour, last.oom_per_hour)
        if oom[0] and oom[1]:
            here["Out of memory"] = f"{oom[0].median:.0f} an hour to {oom[1].median:.0f}{limit}"
    return [(row.what, f"{row.one} to {row.three}, {row.change}", here[row.what]) for row in BASELINE_ROWS]


def _hundred(spread: Any) -> Any:
    return type(spread)(tuple(100 * value for value in spread.values))


def warnings(about: dict[str, Any], results: ScalingResults, trouble: str) -> list[str]:
    """What a reader must know before believing a figure."""
    found = []
    if trouble:
        found.append(f"Partial: {trouble}. What follows is what there was by then.")
    if results.generator_was_limit:
        found.append(
            "The load generator was the limit in "
            + "; ".join(results.generator_was_limit[:6])
            + (" and others" if len(results.generator_was_limit) > 6 else "")
            + ": those figures say too little of the engines."
        )
    if results.machine_share > 0.9:
        found.append(
            f"The machine was {results.machine_share:.0%} busy in its busiest phase: "
            + (
                "emulated engines may have been held up. Slow their clock (--speed) and compare."
                if about["kind"]["emulated"]
                else "engines that compute on its cores, and the load generator, took them from each other."
            )
        )
    fewest = min(at.repeats for at in results.counts.values())
    if fewest < 3:
        found.append(f"Only {fewest} repeat{'s' if fewest > 1 else ''}: no spread can be told from so few.")
    return found


def method_lines(about: dict[str, Any], results: ScalingResults) -> list[str]:
    """How it was measured, a sentence a line."""
    work, kind = about["work"], about["kind"]
    people = work["users_per_engine"]
    speed = about["kind"]["about"].get("speed", 1.0)
    found = [
        f"All engines busy: {people} people for each engine, each with {work['scenario']} questions from seed {work['seed']}, "
        f"{work['full_s']:g} s after {work['full_settle_s']:g} s of settling.",
        f"The same people: {people} of them, however many engines, {work['same_s']:g} s.",
        f"Under the objective: arrivals at random (Poisson), a search in at most {work['most_probes']} probes of {work['probe_s']:g} s, "
        f"to {work['probe_precision']:.0%}.",
        f"With videos: {work['video_users']} people ({work['video_scenario']}), {work['video_s']:g} s.",
        (
            "Engines that ran already go on with what is in their caches; each repeat has other questions. All are warmed up"
            if kind["name"] == "compose"
            else "Each number of engines is brought up anew for each repeat, with cold caches, and warmed up"
        )
        + "; repeats go once through all numbers, beginning with another one each time. Cells are medians with the range of the repeats.",
        "An answer counts when its stream ended with its marker, a token came, and it was not broken off.",
        f"Load generator: Locust, busiest process {results.cpu_p95:.0%} of a core (95th percentile of its seconds); "
        f"the machine was {results.machine_share:.0%} busy in its busiest phase.",
    ]
    searched = min((len(at.limit_rps.values) for at in results.counts.values() if at.limit_rps), default=0)
    if 0 < searched < min(at.repeats for at in results.counts.values()):
        found.append(f"The search was done in {searched} of the repeats: its row has no spread.")
    if kind["emulated"] and "frames_together" in kind["about"]:
        found.append(
            f"In the phase with videos an emulated engine dies when more than {kind['about']['frames_together']} frames wait for their first token "
            "at once, and is back after 12 s. That limit is set, not measured: it shows what spreading videos does, not how many fit."
        )
    if speed != 1:
        found.append(
            f"Emulated time ran at {speed:g} of the wall's, so that neither this machine nor the load generator is the limit; "
            "every figure here is in emulated seconds."
        )
    return found


def machine_line(about: dict[str, Any]) -> str:
    of = about["machine"]
    return (
        f"{of['cpu']}, {of['cores']} cores, {of['memory_gib']} GiB, {of['system']}; commit {of['commit']}, {of['date']}"
    )


def counts_line(results: ScalingResults) -> Sequence[str]:
    return [f"{count} engine{'s' if count > 1 else ''}" for count in results.counts]
