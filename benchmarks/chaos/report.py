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
    lines_by_id: dict[str, list[LoggedRequest]] = defaultdict(list)
    for line in text.splitlines():
        if REQUEST_ID not in line or not line.startswith("{"):
            continue
        try:
            fields = json.loads(line)
            name, status = str(fields["request"]), int(fields["status"])
        except (ValueError, KeyError, TypeError):
            continue
        if name.startswith(REQUEST_ID):
            # nginx separates attempts within a pool by commas, and pools by colons.
            attempts = [
                attempt
                for part in str(fields.get("attempts", "")).split(", ")
                for attempt in part.split(" : ")
                if attempt
            ]
            lines_by_id[name].append(LoggedRequest(status, len(attempts)))
    return dict(lines_by_id)


SLACK_S = 2.0
"""nginx resolves members once a second, and a refused request ends shortly after."""


@dataclass(frozen=True)
class FaultTimes:
    """Times in seconds since 1970: start of the measurement, fault injection, recovery, end of the measurement."""

    began_s: float
    injected_s: float
    recovered_s: float
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
    since = [sample for sample in samples if times.injected_s <= sample.ended_s < times.ended_s]
    good = [sample for sample in since if not sample.failed]
    cut = [sample for sample in since if is_cut(sample)]
    failed = [sample for sample in since if sample.failed and not is_cut(sample)]
    retried = [request for request in tried if times.injected_s <= request.ended_s < times.ended_s]
    lines = {} if log is None else log
    bad_times = [request.ended_s for request in (*cut, *failed)] + [
        request.began_s for request in retried if request.failed_at_first
    ]
    return FaultResult(
        name=fault.name,
        title=fault.title,
        costs=fault.costs,
        answered=len(good),
        failed=len(failed),
        cut=len(cut),
        handed_on=sum(any(line.engines > 1 for line in lines.get(sample.id, ())) for sample in since),
        twice=sum(sum(line.status == 200 for line in lines.get(sample.id, ())) > 1 for sample in since),
        unlogged=0 if log is None else sum(sample.id not in lines for sample in good),
        patient_asked=len(retried),
        patient_asked_again=sum(request.failed_at_first for request in retried),
        patient_lost=sum(not request.answered for request in retried),
        users_recovered_s=max(0.0, max(bad_times, default=0.0) - times.injected_s) if bad_times else 0.0,
        whole_again_s=times.recovered_s - times.injected_s,
        p95_before_s=_p95(samples, times.began_s, times.injected_s),
        p95_during_s=_p95(samples, times.injected_s, times.recovered_s),
        p95_after_s=_p95(samples, times.recovered_s, times.ended_s),
        broken=_broken(fault, times, failed, cut),
        why=dict(Counter(sample.failed for sample in (*failed, *cut)).most_common()),
        notes=tuple(notes),
    )


def _p95(samples: Sequence[Sample], start_s: float, end_s: float) -> float:
    return percentile(
        [sample.total_s for sample in samples if start_s <= sample.ended_s < end_s and not sample.failed], 0.95
    )


def _broken(fault: Fault, times: FaultTimes, failed: Sequence[Sample], cut: Sequence[Sample]) -> str:
    if fault.costs == "nothing" and (failed or cut):
        return f"expected no failed request, got {len(failed)} failed and {len(cut)} cut"
    if fault.costs == "begun" and failed:
        return f"expected to lose only answers that had begun, but {len(failed)} failed before their first byte"
    if fault.costs == "begun" and (unexpected := {sample.engine for sample in cut} - set(fault.services)):
        return f"answers were cut on {', '.join(sorted(unexpected))}, where no fault was injected"
    late = [sample for sample in (*failed, *cut) if sample.began_s > times.recovered_s + SLACK_S]
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
    spared_faults = [outcome for outcome in outcomes if outcome.costs != "in flight"]
    within_cost = sum(not outcome.broken for outcome in outcomes)
    answered = sum(outcome.answered for outcome in outcomes)
    spared = f"requests failed before their first byte in the {len(spared_faults)} faults that may not cost requests in flight"
    figures = [
        (f"{within_cost} of {len(outcomes)}", "faults stayed within their allowed cost"),
        (f"{sum(outcome.failed for outcome in spared_faults)}", spared),
        (f"{sum(outcome.twice for outcome in outcomes)}", f"of {answered} requests answered twice"),
    ]
    if outcomes:
        figures.append((f"{max(outcome.whole_again_s for outcome in outcomes):.1f} s", "longest recovery"))
    return figures


def cells(outcome: FaultResult) -> list[str]:
    return [
        outcome.title,
        outcome.costs,
        str(outcome.answered),
        str(outcome.failed),
        str(outcome.cut),
        str(outcome.handed_on),
        str(outcome.twice),
        f"{outcome.patient_asked_again}, {outcome.patient_lost} of {outcome.patient_asked}",
        f"{outcome.users_recovered_s:.1f}",
        f"{outcome.whole_again_s:.1f}",
        f"{outcome.p95_before_s:.2f} / {outcome.p95_during_s:.2f} / {outcome.p95_after_s:.2f}",
        outcome.broken or "yes",
    ]


def remarks(outcomes: Sequence[FaultResult]) -> list[str]:
    lines = [f"{outcome.name}: {note}" for outcome in outcomes for note in outcome.notes]
    lines += [
        f"{outcome.name}: " + ", ".join(f"{n} x {reason}" for reason, n in outcome.why.items())
        for outcome in outcomes
        if outcome.why
    ]
    gateway_faults = [outcome for outcome in outcomes if "gateway" in outcome.name]
    return (
        [*lines, GATEWAY.format(unlogged=sum(outcome.unlogged for outcome in gateway_faults))]
        if gateway_faults
        else lines
    )


def markdown(run: ChaosRun, outcomes: Sequence[FaultResult]) -> str:
    parts = [
        f"# Chaos report: {run.cluster}{' (emulated)' if run.emulated else ''}\n",
        *([f"**{EMULATED}**\n"] if run.emulated else []),
        *([f"> Partial: {run.partial}\n"] if run.partial else []),
        *(f"* **{figure}** {caption}" for figure, caption in headline(outcomes)),
        "",
        markdown_table(HEADS, map(cells, outcomes)),
        *(f"* {line}" for line in (*NOTES, *remarks(outcomes))),
        f"\n{run.load}. {run.machine}.\n",
        f"    {run.command}\n",
    ]
    return "\n".join(parts)


def page(run: ChaosRun, outcomes: Sequence[FaultResult]) -> str:
    alarms = [f"Partial: {run.partial}"] if run.partial else []
    return render_page(
        Path(__file__).with_name("report.html.j2"),
        run=run,
        emulated_notice=EMULATED,
        alarms=alarms + [f"{outcome.title}: {outcome.broken}" for outcome in outcomes if outcome.broken],
        cards=headline(outcomes),
        bars=Markup(_bars(outcomes)),
        heads=HEADS,
        rows=[cells(outcome) for outcome in outcomes],
        notes=[_bold(line) for line in (*NOTES, *remarks(outcomes))],
    )


def _bold(line: str) -> Markup:
    parts = html.escape(line).split("**")
    return Markup("").join(Markup(f"<b>{part}</b>" if at % 2 else part) for at, part in enumerate(parts))


def _bars(outcomes: Sequence[FaultResult]) -> str:
    longest_s = max((max(outcome.whole_again_s, outcome.users_recovered_s) for outcome in outcomes), default=1) or 1
    height = 24 * len(outcomes)
    parts = [f'<svg viewBox="0 0 900 {height}" role="img" aria-label="seconds to recover, by fault">']
    for at, outcome in enumerate(outcomes):
        y = 24 * at
        whole, users = (500 * seconds / longest_s for seconds in (outcome.whole_again_s, outcome.users_recovered_s))
        parts.append(f'<text class="label" x="250" y="{y + 15}" text-anchor="end">{html.escape(outcome.name)}</text>')
        parts.append(f'<rect class="share s1" x="260" y="{y + 3}" width="{whole:.1f}" height="16" rx="2"/>')
        parts.append(f'<rect x="260" y="{y + 7}" width="{users:.1f}" height="8" fill="var(--third)"/>')
        parts.append(
            f'<text class="label" x="{270 + max(whole, users):.1f}" y="{y + 15}">{outcome.whole_again_s:.1f} s</text>'
        )
    return "".join([*parts, "</svg>"])
