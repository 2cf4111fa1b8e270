"""How often an answer is drawn."""

from webui.ui.redraw_throttle import LONGEST_S, SHORTEST_S, next_pause


def test_a_page_that_keeps_up_draws_twenty_times_a_second() -> None:
    pause = LONGEST_S
    for _ in range(40):
        pause = next_pause(pause, 0.0)
    assert pause == SHORTEST_S


def test_a_page_that_is_late_draws_less_and_never_stops() -> None:
    pause = SHORTEST_S
    for _ in range(40):
        longer = next_pause(pause, 0.5)
        assert longer >= pause
        pause = longer
    assert pause == LONGEST_S
