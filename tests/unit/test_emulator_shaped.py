"""The emulator's answers that must have a form."""

import json

import pytest

from manyeyes.emulator import responses
from manyeyes.emulator.responses import RequestError


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
