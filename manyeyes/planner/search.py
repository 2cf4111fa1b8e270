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
RATE_FACTOR = 1.15  # factor between rates in the search for the maximum rate
RATE_PRECISION = 0.02  # relative precision of the maximum rate

Announce = Callable[[str], Progress]
"""Called with the title of the next simulation; returns the function that receives its progress."""


class NoSufficientSize(Exception):
    """No number of engines is enough. `str()` is one sentence with the reason."""


@dataclass
class CapacityPlan:
    """`tried`: the results at the requested rate, for each number of engines that was simulated."""

    request: PlanRequest
    idle: SimulationResult
    engines: int = 0
    outcome: SimulationResult | None = None
    tried: dict[int, SimulationResult] = field(default_factory=dict)
    rates: dict[float, SimulationResult] = field(default_factory=dict)  # results with `engines`, by requests a second
    limit_rps: float | None = None  # the highest rate that meets the objective
    limit: str = ""  # the resource that costs most time just beyond that rate
    partial: bool = False  # stopped by Ctrl-C

    @property
    def by_engines(self) -> list[tuple[int, SimulationResult]]:
        return sorted(self.tried.items())


def meets_request(request: PlanRequest, outcome: SimulationResult) -> bool:
    return (
        outcome.keeps_up
        and outcome.goodput >= request.goodput
        and percentile(outcome.total_s, 0.95) <= request.p95_s
        and (request.first_p95_s is None or percentile(outcome.first_s, 0.95) <= request.first_p95_s)
    )


def span(request: PlanRequest, requests: int | None = None) -> MeasuredSpan:
    """The time to simulate. Chats of several turns reach their full rate only after the duration of one chat."""
    request_count = requests or max(MIN_REQUESTS, min(MAX_REQUESTS, ceil(request.rps * SECONDS)))
    work = request.work
    chat_s = (work.turns - 1) * (work.think_s * 1.2 + request.p95_s)
    return MeasuredSpan(max(MIN_WARM_S, 2 * request.p95_s, chat_s), request_count / request.rps)


def idle(request: PlanRequest) -> SimulationResult:
    """Simulates the same users at a rate so low that no two requests overlap."""
    low_rps = 0.01 * request.work.turns
    low_rate_request = replace(request, rps=low_rps)
    return Simulation(low_rate_request, 1, MeasuredSpan(0.0, 60 * request.work.turns / low_rps)).run()


def lower_bound(request: PlanRequest) -> int:
    """A lower bound for the number of engines: the work for each conversation's images and first prompt, once."""
    work, profile = request.work, request.gpu_spec.profile
    fitted_width, fitted_height = work.fitted
    preprocessing_s = (
        work.images * (profile.preprocess_item_ms + profile.preprocess_ms * fitted_width * fitted_height / 1e6) / 1e3
    )
    prompt = work.prompt_tokens([])
    first = ScheduledBatch(prefill_tokens=prompt, prefill_pairs=prompt * prompt // 2)
    gpu_s = prefill_s(first, profile) + encoding_s([work.vision_tokens] * work.images, profile)
    return max(1, ceil(request.rps / work.turns * max(preprocessing_s, gpu_s)))


Simulate = Callable[[int, float, float], SimulationResult]
"""Simulates a number of engines at a number of requests a second, for a multiple of the usual time."""


def plan(
    request: PlanRequest, announce: Announce, engines: int | None = None, requests: int | None = None
) -> CapacityPlan:
    """Searches for a plan. With `engines` simulates only that number, sufficient or not.

    Returns a partial plan on Ctrl-C. Raises NoSufficientSize if no number of engines is enough.
    """
    capacity_plan = CapacityPlan(request, idle(request))
    if engines is None and not meets_request(request, replace(capacity_plan.idle, backlog=(0, 0))):
        raise NoSufficientSize(_explain_impossible(request, capacity_plan.idle))

    def simulate(engines: int, rps: float, times: float) -> SimulationResult:
        request_at_rate = replace(request, rps=rps)
        single_span = span(request_at_rate, requests)
        progress = announce(f"{engines} GPUs at {rps:.4g} requests/s" + (", for twice as long" if times > 1 else ""))
        outcome = Simulation(
            request_at_rate, engines, MeasuredSpan(single_span.warm_s, times * single_span.measured_s)
        ).run(progress)
        if outcome.partial:
            raise KeyboardInterrupt
        return outcome

    try:
        capacity_plan.engines = engines or _find_sufficient_size(capacity_plan, simulate)
        capacity_plan.outcome = simulate(capacity_plan.engines, request.rps, 2)
        capacity_plan.tried[capacity_plan.engines] = capacity_plan.rates[request.rps] = capacity_plan.outcome
        _find_limit(capacity_plan, capacity_plan.outcome, simulate)
    except KeyboardInterrupt:
        capacity_plan.partial = True
    return capacity_plan


def _find_sufficient_size(capacity_plan: CapacityPlan, simulate: Simulate) -> int:
    request = capacity_plan.request

    def is_enough(engines: int) -> bool:
        capacity_plan.engines = engines
        capacity_plan.tried[engines] = capacity_plan.outcome = simulate(engines, request.rps, 1)
        return meets_request(request, capacity_plan.outcome)

    low = lower_bound(request) - 1
    high = low + 1
    while not is_enough(high):
        low, high = high, ceil(high * 1.4)
        if high > MAX_ENGINES:
            raise NoSufficientSize(f"More than {MAX_ENGINES} GPUs would be needed. Use a lower rate or a larger P95.")
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return high


def _find_limit(capacity_plan: CapacityPlan, outcome: SimulationResult, simulate: Simulate) -> None:
    request = capacity_plan.request

    def is_sufficient(rps: float) -> bool:
        capacity_plan.rates[rps] = simulate(capacity_plan.engines, rps, 1)
        return meets_request(request, capacity_plan.rates[rps])

    rate = request.rps
    if meets_request(request, outcome):
        while is_sufficient(rate * RATE_FACTOR):
            rate *= RATE_FACTOR
        low, high = rate, rate * RATE_FACTOR
    else:
        while not is_sufficient(rate / RATE_FACTOR):
            rate /= RATE_FACTOR
            if rate < request.rps / 1000:
                return
        low, high = rate / RATE_FACTOR, rate
    while high / low - 1 > RATE_PRECISION:
        middle = (low * high) ** 0.5
        low, high = (middle, high) if is_sufficient(middle) else (low, middle)
    capacity_plan.limit_rps = low
    capacity_plan.limit = first_bottleneck(capacity_plan.rates[high], capacity_plan.idle)


def _explain_impossible(request: PlanRequest, idle: SimulationResult) -> str:
    total_s, first_s = percentile(idle.total_s, 0.95), percentile(idle.first_s, 0.95)
    objective = f"a P95 of {request.p95_s:g} s" + (
        f" with a first token within {request.first_p95_s:g} s" if request.first_p95_s else ""
    )
    return (
        f"No number of GPUs reaches {objective}: even alone on an idle {request.gpu_spec.profile.gpu} such a request takes {total_s:.2f} s "
        f"at P95, {first_s:.2f} s to its first token. Use a larger P95 or fewer output tokens."
    )
