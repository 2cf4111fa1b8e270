"""How often an answer is drawn."""

from webui.chat.chat_handlers import LONGEST_REDRAW_S, SHORTEST_REDRAW_S, next_redraw_pause


def test_a_page_that_keeps_up_draws_twenty_times_a_second() -> None:
    pause = LONGEST_REDRAW_S
    for _ in range(40):
        pause = next_redraw_pause(pause, 0.0)
    assert pause == SHORTEST_REDRAW_S


def test_a_page_that_is_late_draws_less_and_never_stops() -> None:
    pause = SHORTEST_REDRAW_S
    for _ in range(40):
        longer = next_redraw_pause(pause, 0.5)
        assert longer >= pause
        pause = longer
    assert pause == LONGEST_REDRAW_S
