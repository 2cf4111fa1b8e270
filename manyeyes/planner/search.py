"""Searches for the smallest sufficient number of engines and its maximum rate, by simulations with the same users."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import ceil

from loadtest.statistics import percentile
from manyeyes.planner.simulation import MeasuredSpan, Progress, Simulation
from manyeyes.planner.workload import PlanRequest, SimulationResult, first_bottleneck
from manyeyes.simulator.core import encoding_s, prefill_s
from manyeyes.simulator.scheduler import ScheduledBatch

MAX_ENGINES = 100_000
MIN_REQUESTS, MAX_REQUESTS = 3_000, 40_000  # per simulation; the final simulation has twice as many
SECONDS = 120  # of traffic per simulation, within the limits of the number of requests
MIN_WARM_S = 10.0
STEP = 1.15  # factor between rates in the search for the maximum rate
NARROW = 0.02  # relative precision of the maximum rate

Announce = Callable[[str], Progress]
"""Called with the title of the next simulation; returns the function that receives its progress."""


class NoSufficientSize(Exception):
    """No number of engines is enough. `str()` is one sentence with the reason."""


@dataclass
class CapacityPlan:
    """`tried`: the results at the requested rate, for each number of engines that was simulated."""

    ask: PlanRequest
    idle: SimulationResult
    engines: int = 0
    outcome: SimulationResult | None = None
    tried: dict[int, SimulationResult] = field(default_factory=dict)
    rates: dict[float, SimulationResult] = field(default_factory=dict)  # results with `engines`, by requests a second
    breaks_at: float | None = None  # the highest rate that meets the objective
    limit: str = ""  # the resource that costs most time just beyond that rate
    partial: bool = False  # stopped by Ctrl-C

    @property
    def by_engines(self) -> list[tuple[int, SimulationResult]]:
        return sorted(self.tried.items())


def good(ask: PlanRequest, outcome: SimulationResult) -> bool:
    return (
        outcome.keeps_up
        and outcome.goodput >= ask.goodput
        and percentile(outcome.total_s, 0.95) <= ask.p95_s
        and (ask.first_p95_s is None or percentile(outcome.first_s, 0.95) <= ask.first_p95_s)
    )


def span(ask: PlanRequest, requests: int | None = None) -> MeasuredSpan:
    """The time to simulate. Chats of several turns reach their full rate only after the duration of one chat."""
    wanted = requests or max(MIN_REQUESTS, min(MAX_REQUESTS, ceil(ask.rps * SECONDS)))
    work = ask.work
    chat_s = (work.turns - 1) * (work.think_s * 1.2 + ask.p95_s)
    return MeasuredSpan(max(MIN_WARM_S, 2 * ask.p95_s, chat_s), wanted / ask.rps)


def idle(ask: PlanRequest) -> SimulationResult:
    """Simulates the same users at a rate so low that no two requests overlap."""
    seldom = 0.01 * ask.work.turns
    alone = replace(ask, rps=seldom)
    return Simulation(alone, 1, MeasuredSpan(0.0, 60 * ask.work.turns / seldom)).run()


def fewest(ask: PlanRequest) -> int:
    """A lower bound for the number of engines: the work for each conversation's images and first prompt, once."""
    work, profile = ask.work, ask.card.profile
    wide, high = work.fitted
    preprocessing_s = work.images * (profile.preprocess_item_ms + profile.preprocess_ms * wide * high / 1e6) / 1e3
    prompt = work.prompt_tokens([])
    first = ScheduledBatch(prefill_tokens=prompt, prefill_pairs=prompt * prompt // 2)
    gpu_s = prefill_s(first, profile) + encoding_s([work.vision_tokens] * work.images, profile)
    return max(1, ceil(ask.rps / work.turns * max(preprocessing_s, gpu_s)))


Look = Callable[[int, float, float], SimulationResult]
"""Simulates a number of engines at a number of requests a second, for a multiple of the usual time."""


def plan(ask: PlanRequest, announce: Announce, engines: int | None = None, requests: int | None = None) -> CapacityPlan:
    """Searches for a plan. With `engines` simulates only that number, sufficient or not.

    Returns a partial plan on Ctrl-C. Raises NoSufficientSize if no number of engines is enough.
    """
    found = CapacityPlan(ask, idle(ask))
    if engines is None and not good(ask, replace(found.idle, backlog=(0, 0))):
        raise NoSufficientSize(_never(ask, found.idle))

    def look(engines: int, rps: float, times: float) -> SimulationResult:
        asked = replace(ask, rps=rps)
        once = span(asked, requests)
        progress = announce(f"{engines} GPUs at {rps:.4g} requests/s" + (", for twice as long" if times > 1 else ""))
        outcome = Simulation(asked, engines, MeasuredSpan(once.warm_s, times * once.measured_s)).run(progress)
        if outcome.partial:
            raise KeyboardInterrupt
        return outcome

    try:
        found.engines = engines or _enough(found, look)
        found.outcome = look(found.engines, ask.rps, 2)
        found.tried[found.engines] = found.rates[ask.rps] = found.outcome
        _break(found, found.outcome, look)
    except KeyboardInterrupt:
        found.partial = True
    return found


def _enough(found: CapacityPlan, look: Look) -> int:
    ask = found.ask

    def is_enough(engines: int) -> bool:
        found.engines = engines
        found.tried[engines] = found.outcome = look(engines, ask.rps, 1)
        return good(ask, found.outcome)

    low = fewest(ask) - 1
    high = low + 1
    while not is_enough(high):
        low, high = high, ceil(high * 1.4)
        if high > MAX_ENGINES:
            raise NoSufficientSize(f"More than {MAX_ENGINES} GPUs would be needed. Use a lower rate or a larger P95.")
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return high


def _break(found: CapacityPlan, outcome: SimulationResult, look: Look) -> None:
    ask = found.ask

    def holds(rps: float) -> bool:
        found.rates[rps] = look(found.engines, rps, 1)
        return good(ask, found.rates[rps])

    rate = ask.rps
    if good(ask, outcome):
        while holds(rate * STEP):
            rate *= STEP
        low, high = rate, rate * STEP
    else:
        while not holds(rate / STEP):
            rate /= STEP
            if rate < ask.rps / 1000:
                return
        low, high = rate / STEP, rate
    while high / low - 1 > NARROW:
        middle = (low * high) ** 0.5
        low, high = (middle, high) if holds(middle) else (low, middle)
    found.breaks_at = low
    found.limit = first_bottleneck(found.rates[high], found.idle)


def _never(ask: PlanRequest, idle: SimulationResult) -> str:
    total, begins = percentile(idle.total_s, 0.95), percentile(idle.first_s, 0.95)
    what = f"a P95 of {ask.p95_s:g} s" + (
        f" with a first token within {ask.first_p95_s:g} s" if ask.first_p95_s else ""
    )
    return (
        f"No number of GPUs reaches {what}: even alone on an idle {ask.card.profile.gpu} such a request takes {total:.2f} s "
        f"at P95, {begins:.2f} s to its first token. Use a larger P95 or fewer output tokens."
    )
