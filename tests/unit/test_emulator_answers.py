"""What the emulator answers: canned words, and those that must have a form."""

import json

import pytest

from manyeyes.emulator import responses
from manyeyes.emulator.responses import RequestError


def test_an_answer_says_that_it_is_emulated_and_names_the_pictures() -> None:
    words = " ".join(responses.canned_text("What is this?", [(640, 480), (31, 7)], 0))
    assert words.startswith("This answer is emulated: no model has seen your images.")
    assert "You sent 2 images of 640 x 480, 31 x 7 pixels." in words


def test_the_same_request_gets_the_same_words_and_another_text_may_get_others() -> None:
    assert responses.canned_text("hello", [(9, 9)], 1) == responses.canned_text("hello", [(9, 9)], 1)
    assert len({tuple(responses.canned_text(f"question {n}", [], 0)) for n in range(20)}) > 1


@pytest.mark.parametrize(
    ("least", "most", "words", "reason"),
    [(0, 2, "a b", "length"), (0, 9, "a b c", "stop"), (5, 5, "a b c a b", "length")],
    ids=["cut", "fits", "said again"],
)
def test_an_answer_is_as_long_as_it_may_and_must_be(least: int, most: int, words: str, reason: str) -> None:
    tokens, why = responses.answer_text(["a", "b", "c"], least, most)
    assert ("".join(tokens), why) == (words, reason)


def test_an_answer_after_a_schema_has_its_keys_and_types() -> None:
    schema = {
        "type": "object",
        "properties": {
            "total": {"type": "number"},
            "paid": {"type": "boolean"},
            "kind": {"enum": ["receipt", "letter"]},
            "items": {"type": "array", "items": {"type": "object", "properties": {"name": {"type": "string"}}}},
        },
    }
    answer = responses.json_answer({"type": "json_schema", "json_schema": {"name": "page", "schema": schema}})
    assert json.loads(answer or "") == {
        "total": 1.5,
        "paid": True,
        "kind": "receipt",
        "items": [{"name": "emulated name"}],
    }


def test_plain_text_has_no_form_and_an_unknown_form_is_refused() -> None:
    assert responses.json_answer(None) is None
    with pytest.raises(RequestError):
        responses.json_answer({"type": "xml"})


def test_boxes_lie_within_a_thousand() -> None:
    [box] = json.loads(responses.grounding_answer("Give bbox_2d of the button.", 1) or "")
    left, top, right, bottom = box["bbox_2d"]
    assert 0 <= left < right <= 1000
    assert 0 <= top < bottom <= 1000
    assert responses.grounding_answer("Give bbox_2d of the button.", 0) is None


def test_an_answer_goes_on_where_it_broke_off() -> None:
    assert responses.continue_final_message(["one", "two", "three"], "one two") == ["three"]
    assert responses.continue_final_message(["one", "two"], "another answer") == ["one", "two"]


def test_going_on_and_beginning_anew_at_once_is_refused_as_in_vllm() -> None:
    messages = [{"role": "assistant", "content": "one"}]
    body = {"continue_final_message": True, "messages": messages}
    with pytest.raises(RequestError, match="add_generation_prompt"):
        responses.begun_answer(body)
    assert responses.begun_answer(body | {"add_generation_prompt": False}) == "one"
