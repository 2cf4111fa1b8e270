"""The last requests of a pool: percentiles over a window that slides with time and count."""

import random
from math import ceil

from manyeyes.controller.telemetry.request_metrics import FEWEST_FOR_QUANTILE, WINDOW_REQUESTS, WINDOW_S, LatencyWindow


def test_nothing_is_said_before_there_are_enough() -> None:
    recent = LatencyWindow()
    for second in range(FEWEST_FOR_QUANTILE - 1):
        recent.add(second, 1.0, 0.1)
    assert recent.total_ms(0.95, FEWEST_FOR_QUANTILE) is None
    recent.add(FEWEST_FOR_QUANTILE, 1.0, 0.1)
    assert recent.total_ms(0.95, FEWEST_FOR_QUANTILE) == 1000
    assert recent.first_byte_ms(0.5, FEWEST_FOR_QUANTILE) == 100


def test_a_percentile_is_the_time_that_so_many_took_at_most() -> None:
    recent = LatencyWindow()
    for number in range(1, 101):
        recent.add(number, number / 1000, None)
    assert recent.total_ms(0.5, 100) == 50
    assert recent.total_ms(0.95, 100) == 95
    assert recent.total_ms(1, 100) == 100
    assert recent.first_byte_ms(0.95, 100) is None  # none of them had one


def test_what_is_older_than_five_minutes_is_forgotten() -> None:
    recent = LatencyWindow()
    for _ in range(30):
        recent.add(0, 9.0, 9.0)
    for _ in range(30):
        recent.add(200, 1.0, 1.0)
    assert recent.total_ms(0.95, 200) == 9000
    assert recent.total_ms(0.95, WINDOW_S) == 9000
    assert recent.total_ms(0.95, WINDOW_S + 1) == 1000
    assert recent.total_ms(0.95, 200 + WINDOW_S + 1) is None


def test_only_the_last_500_count() -> None:
    recent = LatencyWindow()
    for _ in range(1000):
        recent.add(0, 9.0, None)
    for _ in range(WINDOW_REQUESTS):
        recent.add(1, 1.0, 1.0)
    assert recent.total_ms(1, 1) == 1000


def test_it_agrees_with_sorting_everything_anew() -> None:
    chance = random.Random(2)
    recent = LatencyWindow()
    taken: list[tuple[float, float, float | None]] = []
    now_s = 0.0
    for _ in range(3000):
        now_s += chance.expovariate(1 / chance.choice((0.1, 2.0)))
        total_s = chance.choice((1.0, chance.random()))
        first_byte_s = chance.choice((None, total_s / 2))
        recent.add(now_s, total_s, first_byte_s)
        taken.append((now_s, total_s, first_byte_s))
        kept = [one for one in taken[-WINDOW_REQUESTS:] if one[0] >= now_s - WINDOW_S]
        totals = sorted(one[1] for one in kept)
        first_bytes = sorted(one[2] for one in kept if one[2] is not None)
        for share in (0.5, 0.95):
            assert recent.total_ms(share, now_s) == nearest_rank_ms(totals, share)
            assert recent.first_byte_ms(share, now_s) == nearest_rank_ms(first_bytes, share)


def nearest_rank_ms(ordered: list[float], share: float) -> int | None:
    return round(1000 * ordered[ceil(share * len(ordered)) - 1]) if len(ordered) >= FEWEST_FOR_QUANTILE else None
