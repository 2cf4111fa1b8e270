import pytest

from manyeyes.simulator import request

LIMITS = (65_536, 1_310_720)  # pixels


# The expected numbers, marks apart, are what vLLM 0.32 counted for a Qwen3-VL with these limits.
@pytest.mark.parametrize(
    ("size", "expected"),
    [((333, 517), 160), ((64, 64), 64), ((600, 400), 228), ((1200, 1000), 1178), ((448, 448), 196), ((32, 32), 64)],
)
def test_an_image_costs_as_many_tokens_as_in_qwen3_vl(size: tuple[int, int], expected: int) -> None:
    assert request.image_tokens(*request.fitted(*size, *LIMITS)) == expected


def test_a_huge_image_costs_no_more_than_the_cap() -> None:
    assert request.image_tokens(*request.fitted(9000, 7000, *LIMITS)) <= 1280


def test_a_video_costs_half_of_what_its_frames_would_and_its_time_stamps() -> None:
    size = request.fitted_frame(640, 480, 16, 16 * 640 * 480)
    assert size == (640, 480)
    assert request.video_tokens(*size, 16) == 8 * (20 * 15 + request.PER_FRAME_PAIR)


def test_the_frames_of_a_long_video_are_shrunk_to_the_pixels_it_may_have() -> None:
    wide, high = request.fitted_frame(1920, 1080, 16, 16 * 262_144)
    assert 16 * wide * high <= 16 * 262_144
    assert (wide, high) == (672, 384)


def test_a_word_is_a_token_and_a_very_long_one_is_several() -> None:
    assert len(request.text_tokens("what is  this\n")) == 3
    assert len(request.text_tokens("x" * 33)) == 3
    assert request.text_tokens("") == []


def test_equal_words_are_equal_tokens() -> None:
    assert request.text_tokens("a b a") == request.text_tokens("a\nb  a")
    assert len(set(request.text_tokens("a b a"))) == 2
