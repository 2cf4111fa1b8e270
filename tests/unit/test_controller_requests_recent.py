"""The last requests of a pool: percentiles over a window that slides with time and count."""

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
