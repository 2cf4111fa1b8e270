"""A run's outcomes as Markdown and as one self-contained page. Pure."""

import html
import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from markupsafe import Markup

from benchmarks.chaos.faults import Fault
from benchmarks.chaos.load import RetriedRequest
from loadtest.statistics import Sample, percentile
from manyeyes.charts.templates import markdown_table, render_page

REQUEST_ID = "lt-"
"""How ids of the load test's users begin."""


@dataclass(frozen=True)
class LoggedRequest:
    """One line. `engines`: how many were asked for it."""

    status: int
    engines: int


def log_lines_by_id(text: str) -> dict[str, list[LoggedRequest]]:
    """Every line about a user's request; a line that a kill cut in two is left out."""
    found: dict[str, list[LoggedRequest]] = defaultdict(list)
    for line in text.splitlines():
        if REQUEST_ID not in line or not line.startswith("{"):
            continue
        try:
            told = json.loads(line)
            name, status = str(told["request"]), int(told["status"])
        except (ValueError, KeyError, TypeError):
            continue
        if name.startswith(REQUEST_ID):
            # nginx joins attempts at one pool with commas, and those at the next pool with colons.
            attempts = [one for part in str(told.get("attempts", "")).split(", ") for one in part.split(" : ") if one]
            found[name].append(LoggedRequest(status, len(attempts)))
    return dict(found)


SLACK_S = 2.0
"""nginx asks for members once a second, and a request that is refused ends a moment later."""


@dataclass(frozen=True)
class FaultTimes:
    """Seconds since 1970: of the first look, the strike, everything as before, the last look."""

    began_s: float
    struck_s: float
    whole_s: float
    ended_s: float


@dataclass(frozen=True)
class FaultResult:
    """Requests are counted that ended between strike and last look; `answered` whole, `cut` after their first byte, `failed` before it.

    `handed_on`: a second engine was asked. `twice`: one id was answered more than once. `unlogged`: answered, and not in the log.
    """

    name: str
    title: str
    costs: str
    answered: int
    failed: int
    cut: int
    handed_on: int
    twice: int
    unlogged: int
    patient_asked: int
    patient_asked_again: int
    patient_lost: int
    users_recovered_s: float
    whole_again_s: float
    p95_before_s: float
    p95_during_s: float
    p95_after_s: float
    broken: str
    """What was promised and not kept; empty."""
    why: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def is_cut(sample: Sample) -> bool:
    """Its head had come: nothing may be asked anew, and the user sees it."""
    return bool(sample.failed) and sample.status == 200


def fault_result(
    fault: Fault,
    times: FaultTimes,
    samples: Sequence[Sample],
    tried: Sequence[RetriedRequest],
    log: Mapping[str, Sequence[LoggedRequest]] | None,
    notes: Sequence[str] = (),
) -> FaultResult:
    """`log`: None where it could not be read."""
    since = [one for one in samples if times.struck_s <= one.ended_s < times.ended_s]
    good = [one for one in since if not one.failed]
    cut = [one for one in since if is_cut(one)]
    failed = [one for one in since if one.failed and not is_cut(one)]
    asked = [one for one in tried if times.struck_s <= one.ended_s < times.ended_s]
    lines = {} if log is None else log
    bad_ends = [one.ended_s for one in (*cut, *failed)] + [one.began_s for one in asked if one.failed_at_first]
    return FaultResult(
        name=fault.name,
        title=fault.title,
        costs=fault.costs,
        answered=len(good),
        failed=len(failed),
        cut=len(cut),
        handed_on=sum(any(line.engines > 1 for line in lines.get(one.id, ())) for one in since),
        twice=sum(sum(line.status == 200 for line in lines.get(one.id, ())) > 1 for one in since),
        unlogged=0 if log is None else sum(one.id not in lines for one in good),
        patient_asked=len(asked),
        patient_asked_again=sum(one.failed_at_first for one in asked),
        patient_lost=sum(not one.answered for one in asked),
        users_recovered_s=max(0.0, max(bad_ends, default=0.0) - times.struck_s) if bad_ends else 0.0,
        whole_again_s=times.whole_s - times.struck_s,
        p95_before_s=_p95(samples, times.began_s, times.struck_s),
        p95_during_s=_p95(samples, times.struck_s, times.whole_s),
        p95_after_s=_p95(samples, times.whole_s, times.ended_s),
        broken=_broken(fault, times, failed, cut),
        why=dict(Counter(one.failed for one in (*failed, *cut)).most_common()),
        notes=tuple(notes),
    )


def _p95(samples: Sequence[Sample], start_s: float, end_s: float) -> float:
    return percentile([one.total_s for one in samples if start_s <= one.ended_s < end_s and not one.failed], 0.95)


def _broken(fault: Fault, times: FaultTimes, failed: Sequence[Sample], cut: Sequence[Sample]) -> str:
    if fault.costs == "nothing" and (failed or cut):
        return f"was to cost nothing: {len(failed)} failed, {len(cut)} cut"
    if fault.costs == "begun" and failed:
        return f"was to cost only what had begun: {len(failed)} failed before their first byte"
    if fault.costs == "begun" and (other := {one.engine for one in cut} - set(fault.services)):
        return f"answers were cut on {', '.join(sorted(other))}, which was not struck"
    late = [one for one in (*failed, *cut) if one.began_s > times.whole_s + SLACK_S]
    return f"{len(late)} failed although everything was back" if late else ""


EMULATED = (
    "Emulated: no GPU took part. Engines are stand-ins with the timing of the named card; gateway, controller, containers and faults are real. "
    "A real engine takes longer to start again."
)
HEADS = (
    "fault", "may cost", "answered", "failed", "cut", "handed on", "twice", "asked again, lost after it",
    "users, s", "whole again, s", "P95 before / during / after, s", "kept",
)  # fmt: skip
NOTES = (
    "**failed**: no first byte came, or an error did; **cut**: broken after the first byte, which the user sees. Both are counted from the strike to the last look, by users who keep asking.",
    "**handed on**: the gateway asked a second engine, and the user saw nothing of it. **twice**: one request was answered twice (by its id in the gateway's log).",
    "**asked again, lost after it**: a client that asks four times a second and, as OpenAI's own client, asks again twice (after 0.5 s and 1 s): how many of its questions needed that, and how many failed all the same.",
    "**users**: seconds from the strike to the end of the last request that failed or was cut. **whole again**: until every container runs, the struck one is healthy, and every engine gets requests.",
    "**P95**: of whole answers, in the seconds before the strike, until whole again, and after.",
)
GATEWAY = (
    "The gateway is one process on one host: while it is away nobody is answered, and what it had in flight is lost; Docker starts it again. "
    "nginx writes its log once a second, so up to a second of lines is lost with it: {unlogged} answered requests are in no log."
)


@dataclass(frozen=True)
class ChaosRun:
    cluster: str
    emulated: bool
    load: str
    machine: str
    command: str
    partial: str = ""


def headline(outcomes: Sequence[FaultResult]) -> list[tuple[str, str]]:
    free = [one for one in outcomes if one.costs != "in flight"]
    kept = sum(not one.broken for one in outcomes)
    answered = sum(one.answered for one in outcomes)
    spared = (
        f"requests failed before their first byte in the {len(free)} faults that spare the gateway and lone engines"
    )
    found = [
        (f"{kept} of {len(outcomes)}", "faults cost no more than they may"),
        (f"{sum(one.failed for one in free)}", spared),
        (f"{sum(one.twice for one in outcomes)}", f"of {answered} requests answered twice"),
    ]
    if outcomes:
        found.append((f"{max(one.whole_again_s for one in outcomes):.1f} s", "until everything was as before, at most"))
    return found


def cells(one: FaultResult) -> list[str]:
    return [
        one.title,
        one.costs,
        str(one.answered),
        str(one.failed),
        str(one.cut),
        str(one.handed_on),
        str(one.twice),
        f"{one.patient_asked_again}, {one.patient_lost} of {one.patient_asked}",
        f"{one.users_recovered_s:.1f}",
        f"{one.whole_again_s:.1f}",
        f"{one.p95_before_s:.2f} / {one.p95_during_s:.2f} / {one.p95_after_s:.2f}",
        one.broken or "yes",
    ]


def remarks(outcomes: Sequence[FaultResult]) -> list[str]:
    found = [f"{one.name}: {note}" for one in outcomes for note in one.notes]
    found += [f"{one.name}: " + ", ".join(f"{n} x {why}" for why, n in one.why.items()) for one in outcomes if one.why]
    struck = [one for one in outcomes if "gateway" in one.name]
    return [*found, GATEWAY.format(unlogged=sum(one.unlogged for one in struck))] if struck else found


def markdown(about: ChaosRun, outcomes: Sequence[FaultResult]) -> str:
    parts = [
        f"# Chaos report: {about.cluster}{' (emulated)' if about.emulated else ''}\n",
        *([f"**{EMULATED}**\n"] if about.emulated else []),
        *([f"> Partial: {about.partial}\n"] if about.partial else []),
        *(f"* **{figure}** {what}" for figure, what in headline(outcomes)),
        "",
        markdown_table(HEADS, map(cells, outcomes)),
        *(f"* {line}" for line in (*NOTES, *remarks(outcomes))),
        f"\n{about.load}. {about.machine}.\n",
        f"    {about.command}\n",
    ]
    return "\n".join(parts)


def page(about: ChaosRun, outcomes: Sequence[FaultResult]) -> str:
    alarms = [f"Partial: {about.partial}"] if about.partial else []
    return render_page(
        Path(__file__).with_name("report.html.j2"),
        about=about,
        emulated_notice=EMULATED,
        alarms=alarms + [f"{one.title}: {one.broken}" for one in outcomes if one.broken],
        cards=headline(outcomes),
        bars=Markup(_bars(outcomes)),
        heads=HEADS,
        rows=[cells(one) for one in outcomes],
        notes=[_bold(line) for line in (*NOTES, *remarks(outcomes))],
    )


def _bold(line: str) -> Markup:
    parts = html.escape(line).split("**")
    return Markup("").join(Markup(f"<b>{part}</b>" if at % 2 else part) for at, part in enumerate(parts))


def _bars(outcomes: Sequence[FaultResult]) -> str:
    most = max((max(one.whole_again_s, one.users_recovered_s) for one in outcomes), default=1) or 1
    height = 24 * len(outcomes)
    parts = [f'<svg viewBox="0 0 900 {height}" role="img" aria-label="seconds to recover, by fault">']
    for at, one in enumerate(outcomes):
        y = 24 * at
        whole, users = (500 * seconds / most for seconds in (one.whole_again_s, one.users_recovered_s))
        parts.append(f'<text class="label" x="250" y="{y + 15}" text-anchor="end">{html.escape(one.name)}</text>')
        parts.append(f'<rect class="share s1" x="260" y="{y + 3}" width="{whole:.1f}" height="16" rx="2"/>')
        parts.append(f'<rect x="260" y="{y + 7}" width="{users:.1f}" height="8" fill="var(--third)"/>')
        parts.append(
            f'<text class="label" x="{270 + max(whole, users):.1f}" y="{y + 15}">{one.whole_again_s:.1f} s</text>'
        )
    return "".join([*parts, "</svg>"])
