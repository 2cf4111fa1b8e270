"""Counts the effects of faults and writes the report as Markdown and as a self-contained HTML page. Pure."""

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
"""Prefix of the request ids of the load test's users."""


@dataclass(frozen=True)
class LoggedRequest:
    """One line of the gateway's log. `engines`: to how many engines the request was sent."""

    status: int
    engines: int


def log_lines_by_id(text: str) -> dict[str, list[LoggedRequest]]:
    """Returns the log lines of the users' requests by request id; skips lines that a kill cut off."""
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
            # nginx separates attempts within a pool by commas, and pools by colons.
            attempts = [one for part in str(told.get("attempts", "")).split(", ") for one in part.split(" : ") if one]
            found[name].append(LoggedRequest(status, len(attempts)))
    return dict(found)


SLACK_S = 2.0
"""nginx resolves members once a second, and a refused request ends shortly after."""


@dataclass(frozen=True)
class FaultTimes:
    """Times in seconds since 1970: start of the measurement, fault injection, recovery, end of the measurement."""

    began_s: float
    struck_s: float
    whole_s: float
    ended_s: float


@dataclass(frozen=True)
class FaultResult:
    """Counts the requests that ended between the injection of the fault and the end of the measurement.

    `answered`: completely; `cut`: after their first byte; `failed`: before it. `handed_on`: retried on a second engine.
    `twice`: answered more than once. `unlogged`: answered, but missing in the gateway's log.
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
    """How the fault exceeded its allowed cost; empty if it did not."""
    why: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def is_cut(sample: Sample) -> bool:
    """Whether the response headers had arrived: the request cannot be retried, and the user sees the failure."""
    return bool(sample.failed) and sample.status == 200


def fault_result(
    fault: Fault,
    times: FaultTimes,
    samples: Sequence[Sample],
    tried: Sequence[RetriedRequest],
    log: Mapping[str, Sequence[LoggedRequest]] | None,
    notes: Sequence[str] = (),
) -> FaultResult:
    """Counts the effects of one fault. `log`: None if it could not be read."""
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
        return f"expected no failed request, got {len(failed)} failed and {len(cut)} cut"
    if fault.costs == "begun" and failed:
        return f"expected to lose only answers that had begun, but {len(failed)} failed before their first byte"
    if fault.costs == "begun" and (other := {one.engine for one in cut} - set(fault.services)):
        return f"answers were cut on {', '.join(sorted(other))}, where no fault was injected"
    late = [one for one in (*failed, *cut) if one.began_s > times.whole_s + SLACK_S]
    return f"{len(late)} failed after the cluster had recovered" if late else ""


EMULATED = (
    "Emulated: no GPU took part. Engines are emulated with the timing of the named card; gateway, controller, containers and faults are real. "
    "A real engine takes longer to restart."
)
HEADS = (
    "fault", "may cost", "answered", "failed", "cut", "retried", "answered twice", "client retried, lost",
    "users, s", "recovery, s", "P95 before / during / after, s", "within limit",
)  # fmt: skip
NOTES = (
    "**may cost**: **nothing** no request; **begun** answers that had begun on the failed engine; **in flight** all requests in flight, and requests until recovery.",
    "**failed**: no first byte arrived, or an error; **cut**: broken off after the first byte, which the user sees. Both are counted from the injection of the fault to the end of the measurement.",
    "**retried**: the gateway retried the request on a second engine, unnoticed by the user. **answered twice**: one request was answered twice (by its id in the gateway's log).",
    "**client retried, lost**: a client that sends four requests a second and retries each twice, as OpenAI's client does (after 0.5 s and 1 s): how many of its requests needed a retry, and how many still failed.",
    "**users**: seconds from the injection to the end of the last request that failed or was cut. **recovery**: seconds until every container runs, the failed container is healthy, and every engine gets requests.",
    "**P95**: of complete answers, before the injection, until recovery, and after. **within limit**: whether the fault cost no more than it may.",
)
GATEWAY = (
    "The gateway is a single nginx: while it is down no client is answered, and its requests in flight are lost; Docker restarts it. "
    "nginx writes its log once a second, so up to a second of lines is lost: {unlogged} answered requests are missing in the log."
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
    spared = f"requests failed before their first byte in the {len(free)} faults that may not cost requests in flight"
    found = [
        (f"{kept} of {len(outcomes)}", "faults stayed within their allowed cost"),
        (f"{sum(one.failed for one in free)}", spared),
        (f"{sum(one.twice for one in outcomes)}", f"of {answered} requests answered twice"),
    ]
    if outcomes:
        found.append((f"{max(one.whole_again_s for one in outcomes):.1f} s", "longest recovery"))
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
