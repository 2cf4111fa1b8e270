import pytest

from engine.emulator.timing import due_s, first_token_s, tokens_due


def test_each_image_delays_the_first_token() -> None:
    assert first_token_s(0.12, 0.06, 0) == pytest.approx(0.12)
    assert first_token_s(0.12, 0.06, 3) == pytest.approx(0.30)


@pytest.mark.parametrize("number", [1, 2, 3, 10, 99])
def test_at_the_moment_a_token_falls_due_it_is_counted_and_the_next_is_not(number: int) -> None:
    assert tokens_due(due_s(0.12, 0.012, number), 0.12, 0.012, 100) == number


def test_before_the_first_token_none_is_due_and_after_the_last_all_are() -> None:
    assert tokens_due(0.11, 0.12, 0.012, 5) == 0
    assert tokens_due(60.0, 0.12, 0.012, 5) == 5


def test_tokens_that_take_no_time_are_all_due_with_the_first() -> None:
    assert tokens_due(0.12, 0.12, 0.0, 5) == 5
