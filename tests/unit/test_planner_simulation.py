"""The planner's simulation: what must hold whatever the numbers are."""

from dataclasses import replace

import pytest

from loadtest.statistics import percentile
from manyeyes.config.pools import Pool
from manyeyes.planner.balancing import POLICIES
from manyeyes.planner.simulation import MeasuredSpan, Simulation
from manyeyes.planner.workload import (
    STAGES,
    PlannedWorkload,
    PlanRequest,
    SimulatedConversation,
    SimulationResult,
    arrivals,
    gpu_spec_of,
)
from manyeyes.simulator import profile

FOUR_B = profile.load_profile("rtx4090-qwen3-vl-4b-fp8")
CARD = gpu_spec_of(FOUR_B, Pool(name="p", model="Qwen/Qwen3-VL-4B-Instruct-FP8"))
CHATS = PlannedWorkload(1024, 768, turns=5, think_s=3.0, output_tokens=60)
PICTURES = PlannedWorkload(1280, 720, output_tokens=60)


def ask(work: PlannedWorkload = PICTURES, rps: float = 10.0, policy: str = "sticky", seed: int = 1) -> PlanRequest:
    return PlanRequest(work, CARD, rps, 5.0, None, 0.99, policy=policy, seed=seed)


def run(wanted: PlanRequest, engines: int = 3, warm_s: float = 20.0, measured_s: float = 60.0) -> SimulationResult:
    return Simulation(wanted, engines, MeasuredSpan(warm_s, measured_s)).run()


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("rps", [3.0, 40.0], ids=["calm", "overloaded"])
def test_every_request_ends_once(policy: str, rps: float) -> None:
    few_places = replace(CARD, in_flight=20, max_num_seqs=10)
    simulation = Simulation(replace(ask(rps=rps, policy=policy), gpu_spec=few_places), 2, MeasuredSpan(5.0, 20.0))
    outcome = simulation.run()
    assert outcome.all_requests == outcome.all_ended
    assert outcome.requests == outcome.answered + outcome.refused + outcome.failed
    assert simulation.in_flight == 0
    assert sum(simulation.balancer.counts) == 0
    assert not simulation._sequences
    assert bool(outcome.refused) is (rps > 10)
    for engine in simulation.engines:
        assert not engine.core.scheduler.running
        assert not engine.core.scheduler.waiting
        assert engine.core.scheduler.kv.usage == 0


def test_the_same_seed_gives_the_same_outcome_and_another_one_another() -> None:
    one, again, other = (run(ask(CHATS, seed=seed)) for seed in (1, 1, 2))
    assert list(one.total_s) == list(again.total_s)
    assert list(one.total_s) != list(other.total_s)


def test_the_stages_of_a_request_add_up_to_its_time() -> None:
    outcome = run(ask(rps=18.0))
    assert sum(outcome.stage_s(name) for name in STAGES) == pytest.approx(sum(outcome.total_s) / outcome.answered)
    assert outcome.stage_s("preprocessing") == pytest.approx((2 + 33 * 1280 * 704 / 1e6) / 1e3)


def test_a_lone_request_takes_what_its_parts_take() -> None:
    outcome = run(ask(replace(PICTURES, vary=0.0), rps=0.05), engines=1, warm_s=0.0, measured_s=2000.0)
    tokens = PICTURES.prompt_tokens([])
    first_s = (
        FOUR_B.render_ms
        + FOUR_B.decode_ms * 1280 * 720 / 1e6
        + FOUR_B.preprocess_item_ms
        + FOUR_B.preprocess_ms * 1280 * 704 / 1e6
        + FOUR_B.iteration_ms
        + FOUR_B.prefill_us * tokens / 1e3
        + FOUR_B.encode_item_ms
        + FOUR_B.encode_us * PICTURES.vision_tokens / 1e3
    ) / 1e3
    assert percentile(outcome.first_s, 0.5) == pytest.approx(first_s, rel=1e-6)
    context_s = FOUR_B.context_ns / 1e9 * sum(tokens + n for n in range(1, 60))
    answer_s = 59 * (FOUR_B.iteration_ms / 1e3 + FOUR_B.decode_us / 1e6) + context_s
    assert percentile(outcome.total_s, 0.5) == pytest.approx(first_s + answer_s, rel=1e-3)


def test_pictures_come_no_faster_than_one_thread_preprocesses_them() -> None:
    slow = replace(CARD, profile=replace(FOUR_B, preprocess_ms=200.0))
    outcome = run(replace(ask(replace(PICTURES, output_tokens=2), rps=20.0), gpu_spec=slow), engines=2)
    most = 2 / ((2 + 200 * 1280 * 704 / 1e6) / 1e3)
    assert outcome.rps == pytest.approx(most, rel=0.02)
    assert outcome.preprocessing_busy > 0.95
    assert outcome.goodput < 0.7


def test_stickiness_finds_more_in_the_cache_and_answers_sooner_than_plain_least_conn() -> None:
    sticky, plain = (run(ask(CHATS, rps=12.0, policy=policy), warm_s=30.0) for policy in ("sticky", "least_conn"))
    assert sticky.cached_share > 1.5 * plain.cached_share
    assert percentile(sticky.first_s, 0.95) < percentile(plain.first_s, 0.95)


def test_without_caches_to_win_balance_is_all_and_random_is_worst() -> None:
    p99 = {
        policy: percentile(run(ask(rps=28.0, policy=policy), engines=6, measured_s=120.0).total_s, 0.99)
        for policy in ("random", "power_of_two", "least_conn")
    }
    assert p99["least_conn"] < p99["power_of_two"] < p99["random"]


def test_with_one_engine_every_policy_is_the_same() -> None:
    outcomes = [list(run(ask(CHATS, rps=2.0, policy=policy), engines=1).total_s) for policy in POLICIES]
    assert all(one == outcomes[0] for one in outcomes)


def test_a_small_kv_cache_preempts_or_makes_wait_and_everybody_is_still_answered() -> None:
    tight = replace(CARD, kv_cache_tokens=6_000)
    outcome = run(replace(ask(replace(PICTURES, output_tokens=400), rps=0.8), gpu_spec=tight), engines=1)
    assert outcome.preempted or outcome.waited_s.get("kv", 0) > 0
    assert outcome.goodput == 1.0


def test_ctrl_c_leaves_what_is_known_marked_partial() -> None:
    def stop(share: float) -> None:
        if share > 0.5:
            raise KeyboardInterrupt

    outcome = Simulation(ask(rps=15.0), 3, MeasuredSpan(5.0, 600.0)).run(stop)
    assert outcome.partial
    assert 0 < outcome.measured_s < 600
    assert outcome.answered > 100
    assert outcome.rps == pytest.approx(15.0, rel=0.15)


def test_the_prompts_of_a_chat_hold_all_its_turns_so_far() -> None:
    chat = SimulatedConversation(CHATS, 1, 5)
    jobs = [chat.next_job() for _ in range(5)]
    answers = [len(job.answer) for job in jobs]
    assert [len(job.prompt) for job in jobs] == [CHATS.prompt_tokens(answers[:turn]) for turn in range(5)]
    assert chat.ended
    assert len({job.media[0].key for job in jobs}) == 1


def test_answers_vary_within_what_was_asked_and_about_its_mean() -> None:
    lengths = [PICTURES.answer_tokens(3, number, 0) for number in range(4000)]
    assert min(lengths) >= 30
    assert max(lengths) <= 90
    assert sum(lengths) / len(lengths) == pytest.approx(60, rel=0.02)


def test_people_come_at_the_rate_that_was_asked() -> None:
    assert len(list(arrivals(1, 20.0, 500.0))) == pytest.approx(10_000, rel=0.03)
