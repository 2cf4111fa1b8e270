"""One fault in figures: what users saw, and what the gateway's log says of the same requests. Pure."""

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.chaos.faults import Fault
from benchmarks.chaos.load import RetriedRequest
from loadtest.sample import Sample
from loadtest.statistics import percentile

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
