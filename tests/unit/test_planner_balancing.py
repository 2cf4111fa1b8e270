"""Which engine a simulated request goes to."""

from random import Random

import pytest

from manyeyes.planner.balancing import POLICIES, Balancer


def made(name: str, engines: int = 3, most: int = 4) -> Balancer:
    return POLICIES[name](engines, most, Random(1))


def take(balancer: Balancer, conversation: int = 0, known: bool = False) -> int | None:
    engine = balancer.pick(conversation, known)
    if engine is not None:
        balancer.began(engine)
    return engine


@pytest.mark.parametrize("name", POLICIES)
def test_an_engine_gets_no_more_than_it_may_have_and_then_nobody_does(name: str) -> None:
    balancer = made(name)
    taken = [take(balancer, n) for n in range(13)]
    assert taken[-1] is None
    assert sorted(balancer.counts) == [4, 4, 4]
    balancer.ended(1)
    assert take(balancer) == 1


@pytest.mark.parametrize("name", POLICIES)
def test_an_engine_that_refused_is_not_asked_again(name: str) -> None:
    balancer = made(name)
    assert all(balancer.pick(n, False, [0, 2]) == 1 for n in range(20))
    assert balancer.pick(0, False, [0, 1, 2]) is None


def test_the_least_busy_engine_is_chosen_and_equal_ones_take_turns() -> None:
    balancer = made("least_conn")
    taken = [take(balancer) for _ in range(9)]
    assert [sorted(taken[n : n + 3]) for n in (0, 3, 6)] == [[0, 1, 2]] * 3  # type: ignore[type-var]
    for engine in (1, 1, 2):
        balancer.ended(engine)
    assert take(balancer) == 1
    assert {take(balancer), take(balancer)} == {1, 2}


def test_equal_engines_take_turns_as_in_nginx_also_when_one_of_them_was_chosen_last() -> None:
    balancer = made("least_conn")
    # 0 of all, 1 of {1, 2}, 2 alone; then 2 again, which in a queue by age would be the last one.
    assert [take(balancer) for _ in range(4)] == [0, 1, 2, 2]


def test_among_many_engines_the_one_that_was_least_busy_for_longest_is_chosen() -> None:
    balancer = made("least_conn", engines=100)
    assert [take(balancer) for _ in range(200)] == [*range(100), *range(100)]


def test_round_robin_goes_on_where_it_was() -> None:
    assert [take(made_once) for made_once in [made("round_robin")] * 5] == [0, 1, 2, 0, 1]


def test_a_later_turn_goes_where_the_one_before_was_answered() -> None:
    balancer = made("sticky")
    for engine in (0, 1, 2):
        assert take(balancer, engine) == engine
        balancer.answered(engine, engine, last=False)
    assert [take(balancer, conversation, known=True) for conversation in (2, 2, 0)] == [2, 2, 0]


def test_a_later_turn_goes_elsewhere_when_its_engine_is_full() -> None:
    balancer = made("sticky", most=1)
    home = take(balancer, 7)
    assert home is not None
    balancer.answered(7, home, last=False)
    assert take(balancer, 7, known=True) != home


def test_of_two_random_engines_the_less_busy_one_is_taken() -> None:
    balancer = made("power_of_two", engines=2, most=1000)
    for _ in range(500):
        take(balancer)
    assert abs(balancer.counts[0] - balancer.counts[1]) < 30


def test_random_choices_leave_some_engines_busier_than_two_choices_do() -> None:
    def uneven(name: str) -> int:
        balancer = made(name, engines=200, most=10_000)
        for _ in range(20_000):
            take(balancer)
        return max(balancer.counts) - min(balancer.counts)

    assert uneven("least_conn") <= 1 < uneven("power_of_two") < uneven("random")
