import pytest

from engine.emulator import tokens

LIMITS = (65_536, 1_310_720)  # pixels


# The expected numbers, marks apart, are what vLLM 0.32 counted for a Qwen3-VL with these limits.
@pytest.mark.parametrize(
    ("size", "expected"),
    [((333, 517), 160), ((64, 64), 64), ((600, 400), 228), ((1200, 1000), 1178), ((448, 448), 196), ((32, 32), 64)],
)
def test_an_image_costs_as_many_tokens_as_in_qwen3_vl(size: tuple[int, int], expected: int) -> None:
    assert tokens.image_tokens(*size, *LIMITS) - tokens.AROUND_VISION == expected


def test_a_huge_image_costs_no_more_than_the_cap() -> None:
    assert tokens.image_tokens(9000, 7000, *LIMITS) <= 1280 + tokens.AROUND_VISION


def test_a_video_costs_half_of_what_its_frames_would() -> None:
    assert tokens.video_tokens(*LIMITS) == 16 * 20 * 15 // 2 + tokens.AROUND_VISION


def test_a_word_is_a_token_and_a_very_long_one_is_several() -> None:
    assert tokens.text_tokens("what is  this\n") == 3
    assert tokens.text_tokens("x" * 33) == 3
    assert tokens.text_tokens("") == 0
