"""The core that leaps tells the same times as the one that takes every iteration."""

from dataclasses import replace
from heapq import heapify, heappop
from random import Random

import pytest

from manyeyes.simulator import profile
from manyeyes.simulator.core import BatchedCore, FastForwardCore
from manyeyes.simulator.request import MediaItem
from tests.unit.emulated import medium, scheduler, sequence

PROFILE = profile.load_profile("rtx4090-qwen3-vl-4b-fp8")
Arrivals = list[tuple[float, int, int, tuple[MediaItem, ...]]]


def arrivals(seed: int, number: int, mean_gap_s: float) -> Arrivals:
    """When, prompt, answer and picture of so many requests."""
    found: Arrivals = []
    random, at = Random(seed), 0.0
    for key in range(number):
        at += random.expovariate(1 / mean_gap_s)
        prompt = random.randint(20, 700)
        media = (medium(key, tokens=16, offset=2),) if random.random() < 0.5 else ()
        found.append((at, prompt, random.randint(1, 120), media))
    return found


def one_by_one(wanted: Arrivals, kv_tokens: int, seats: int) -> list[tuple[float, float]]:
    core = BatchedCore(scheduler(kv_tokens, seats), PROFILE)
    jobs = [sequence(prompt, answer, media, start=10_000 * n) for n, (_, prompt, answer, media) in enumerate(wanted)]
    told: dict[int, list[float]] = {id(job): [] for job in jobs}
    queue = [(at, n) for n, (at, *_) in enumerate(wanted)]
    heapify(queue)
    while queue or core.next_at is not None:
        if queue and (core.next_at is None or queue[0][0] <= core.next_at):
            at, n = heappop(queue)
            core.add(jobs[n], at)
            continue
        assert core.next_at is not None
        for step in core.advance(core.next_at):
            for job, _ in step.produced:
                told[id(job)].append(step.at)
    return [(told[id(job)][0], told[id(job)][-1]) for job in jobs]


def in_leaps(wanted: Arrivals, kv_tokens: int, seats: int) -> tuple[list[tuple[float, float]], int]:
    core = FastForwardCore(scheduler(kv_tokens, seats), PROFILE)
    jobs = [sequence(prompt, answer, media, start=10_000 * n) for n, (_, prompt, answer, media) in enumerate(wanted)]
    queue = [(at, n) for n, (at, *_) in enumerate(wanted)]
    heapify(queue)
    leaps = 0
    while queue or core.next_at is not None:
        if queue and (core.next_at is None or queue[0][0] <= core.next_at):
            at, n = heappop(queue)
            core.add(jobs[n], at)
        else:
            core.advance()
            leaps += 1
    return [(job.first_token, job.last_token) for job in jobs], leaps


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(
    ("kv_tokens", "seats", "gap_s"),
    [(16_000, 8, 0.4), (16_000, 8, 0.05), (16_000, 3, 0.1), (1_300, 8, 0.05), (900, 4, 0.3)],
    ids=["calm", "crowded", "few seats", "little room", "hardly any room"],
)
def test_the_times_of_every_first_and_last_token_are_those_of_the_core_without_leaps(
    seed: int, kv_tokens: int, seats: int, gap_s: float
) -> None:
    wanted = arrivals(seed, 60, gap_s)
    expected = one_by_one(wanted, kv_tokens, seats)
    found, _ = in_leaps(wanted, kv_tokens, seats)
    for one, other in zip(expected, found, strict=True):
        assert other == pytest.approx(one, rel=1e-9)


def test_a_long_answer_alone_takes_a_handful_of_steps() -> None:
    found, leaps = in_leaps([(0.0, 100, 2_000, ())], 16_000, 8)
    assert leaps < 10
    assert found[0] == pytest.approx(one_by_one([(0.0, 100, 2_000, ())], 16_000, 8)[0])


def test_time_spent_adds_up_to_the_time_there_was_work() -> None:
    core = FastForwardCore(scheduler(), replace(PROFILE, context_ns=0.0))
    one = sequence(100, answer=50)
    core.add(one, 3.0)
    while core.next_at is not None:
        core.advance()
    assert core.spent.busy_s == pytest.approx(one.last_token - 3.0)
    assert core.spent.prefill_s == pytest.approx(100 * PROFILE.prefill_us / 1e6)
    assert core.spent.encode_s == 0


@pytest.mark.parametrize(("room", "reason"), [({"seats": 1}, "seats"), ({"kv_tokens": 160}, "kv")])
def test_what_is_waited_for_is_said(room: dict[str, int], reason: str) -> None:
    core = FastForwardCore(scheduler(**room), PROFILE)
    core.add(sequence(100, answer=30), 0.0)
    core.add(sequence(100, answer=30, start=900), 0.0)
    while core.next_at is not None:
        core.advance()
    assert set(core.spent.waited_s) == {reason}
