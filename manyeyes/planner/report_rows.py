"""What a plan says, as rows of text: the same ones for the terminal, Markdown and HTML."""

from dataclasses import dataclass

from loadtest.statistics import percentile
from manyeyes.planner.bottlenecks import lost
from manyeyes.planner.plan_request import Ask
from manyeyes.planner.result import STAGES, Outcome
from manyeyes.planner.search import Plan, good

Row = tuple[str, ...]


@dataclass(frozen=True)
class Table:
    title: str
    head: Row
    rows: list[Row]


def asked(ask: Ask) -> str:
    """The question in a sentence."""
    work = ask.work
    pictures = (
        f"{work.images} picture{'s' * (work.images != 1)} of {work.width} x {work.height}"
        if work.images
        else "no picture"
    )
    turns = f", chats of {work.turns} turns, {work.think_s:g} s apart" if work.turns > 1 else ""
    first = f", first token within {ask.first_p95_s:g} s" if ask.first_p95_s else ""
    answer = f"{work.output_tokens * (1 - work.vary):.0f} to {work.output_tokens * (1 + work.vary):.0f}"
    return (
        f"{ask.rps:g} requests/s: {pictures}, {work.words} words, answers of {answer} tokens{turns}; "
        f"P95 within {ask.p95_s:g} s{first}, {ask.goodput:.1%} answered; {ask.policy} balancing"
    )


def caveat(ask: Ask) -> str:
    """What these numbers are."""
    return (
        f"Estimate: simulated with the emulator's physics of one {ask.card.profile.gpu} with {ask.card.profile.model}. "
        "No GPU was used; `make calibrate` measures yours."
    )


def verdict(plan: Plan) -> str:
    """The answer in a sentence."""
    outcome = plan.outcome
    if plan.partial or outcome is None:
        return f"Interrupted: {plan.engines} GPUs were looked at last, which need not be the fewest that are enough."
    met = good(plan.ask, outcome)
    text = f"{gpus(plan.engines)} {'are' if plan.engines > 1 else 'is'} {'enough' if met else 'not enough'}: {speed(outcome)}."
    if plan.breaks_at:
        text += (
            f" It holds up to {plan.breaks_at:.3g} requests/s ({plan.breaks_at / plan.ask.rps:.2f} times what is asked); "
            f"beyond that most time is lost to {plan.limit}."
        )
    return text


def tables(plan: Plan, price: float | None) -> list[Table]:
    """All of them. `price` is of one GPU for an hour."""
    found = []
    if plan.outcome is not None:
        found.append(Table(f"What {gpus(plan.engines)} bring", ("what", "value"), _outcome(plan, plan.outcome, price)))
        found.append(
            Table("Where a request's time goes", ("stage", "idle engine", "here"), _stages(plan, plan.outcome))
        )
    if len(plan.tried) > 1:
        rows = [(str(n), *_short(plan.ask, one)) for n, one in plan.by_engines]
        found.append(Table(f"Number of GPUs, at {plan.ask.rps:g} requests/s", ("GPUs", *SHORT), rows))
    if len(plan.rates) > 1:
        rows = [(f"{rps:.3g}", *_short(plan.ask, one)) for rps, one in sorted(plan.rates.items())]
        found.append(Table(f"Where {gpus(plan.engines)} break", ("requests/s", *SHORT), rows))
    return found


SHORT = ("answered/s", "P95", "first token P95", "answered", "good")


def _short(ask: Ask, outcome: Outcome) -> Row:
    return (
        f"{outcome.rps:.2f}",
        seconds(percentile(outcome.total_s, 0.95)),
        seconds(percentile(outcome.first_s, 0.95)),
        f"{outcome.goodput:.1%}",
        "yes" if good(ask, outcome) else "no" if outcome.keeps_up else "no, falls behind",
    )


def _outcome(plan: Plan, outcome: Outcome, price: float | None) -> list[Row]:
    def three(values: "list[float]") -> str:
        return " / ".join(seconds(percentile(values, share)) for share in (0.5, 0.95, 0.99))

    rows: list[Row] = [
        ("requests/s answered", f"{outcome.rps:.2f} of {outcome.offered_rps:g} ({outcome.requests} simulated)"),
        ("time to the last token, P50 / P95 / P99", three(list(outcome.total_s))),
        ("time to the first token, P50 / P95 / P99", three(list(outcome.first_s))),
        ("answered; refused with 429; failed", f"{outcome.goodput:.2%}; {outcome.refused}; {outcome.failed}"),
        ("output tokens/s", f"{outcome.tokens / outcome.measured_s:.0f}" if outcome.measured_s else "-"),
        ("preprocessing thread at work", f"{outcome.preprocessing_busy:.0%} of the time"),
        (
            "GPU at work; of that pictures, prompts",
            f"{outcome.gpu_busy:.0%}; {outcome.encode_share:.0%}, {outcome.prefill_share:.0%}",
        ),
        ("KV cache in use; preemptions", f"{outcome.kv_used:.0%}; {outcome.preempted}"),
        ("prompt tokens from the prefix cache", f"{outcome.cached_share:.0%}"),
    ]
    if plan.breaks_at:
        rows.append(("breaks at", f"{plan.breaks_at:.3g} requests/s: {plan.limit}"))
    if price is not None and outcome.rps:
        rows += _costs(plan, outcome, price)
    return rows


def _costs(plan: Plan, outcome: Outcome, price: float) -> list[Row]:
    per_request = plan.engines * price / 3600 / outcome.rps
    pictures = plan.ask.work.images / plan.ask.work.turns  # new ones, in each request
    rows: list[Row] = [("cost per million requests", f"{1e6 * per_request:,.0f} at {price:g} a GPU and hour")]
    if pictures:
        rows.append(("cost per million pictures", f"{1e6 * per_request / pictures:,.0f}"))
    return rows


def _stages(plan: Plan, outcome: Outcome) -> list[Row]:
    rows: list[Row] = [(name, seconds(plan.idle.stage_s(name)), seconds(outcome.stage_s(name))) for name in STAGES]
    whole = sum(outcome.stage_s(name) for name in STAGES)
    rows.append(("mean, together", seconds(sum(plan.idle.stage_s(name) for name in STAGES)), seconds(whole)))
    rows += [(f"lost to {name}", "", seconds(extra)) for name, extra in lost(outcome, plan.idle).items()]
    return rows


def gpus(number: int) -> str:
    return f"{number} GPU{'s' * (number != 1)}"


def speed(outcome: Outcome) -> str:
    return (
        f"{outcome.rps:.4g} requests/s with a P95 of {seconds(percentile(outcome.total_s, 0.95))}, first token "
        f"{seconds(percentile(outcome.first_s, 0.95))}"
    )


def seconds(value: float) -> str:
    return f"{value:.2f} s" if value >= 0.9995 else f"{1e3 * value:.0f} ms"
