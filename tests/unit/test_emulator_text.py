from manyeyes.emulator import responses


def test_an_answer_says_that_it_is_emulated_and_names_the_pictures() -> None:
    words = " ".join(responses.canned_text("What is this?", [(640, 480), (31, 7)], 0))
    assert words.startswith("This answer is emulated: no model looked at your pictures.")
    assert "You sent 2 pictures of 640 x 480, 31 x 7 pixels." in words


def test_the_same_request_gets_the_same_words_and_another_text_may_get_others() -> None:
    assert responses.canned_text("hello", [(9, 9)], 1) == responses.canned_text("hello", [(9, 9)], 1)
    assert len({tuple(responses.canned_text(f"question {n}", [], 0)) for n in range(20)}) > 1


def test_an_answer_is_cut_at_max_tokens_with_finish_reason_length() -> None:
    assert responses.answer_text(["a", "b", "c"], least=0, most=2) == (["a", " b"], "length")


def test_an_answer_that_fits_ends_with_stop() -> None:
    assert responses.answer_text(["a", "b", "c"], least=0, most=9) == (["a", " b", " c"], "stop")


def test_an_answer_that_must_be_longer_is_said_again() -> None:
    assert responses.answer_text(["a", "b"], least=5, most=5) == (["a", " b", " a", " b", " a"], "length")
