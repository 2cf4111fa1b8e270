"""Request templates: what they may be, and what becomes of a question in them."""

import json
from datetime import date
from typing import Any

import pytest
from pydantic import ValidationError

from manyeyes.config.custom_endpoint import Endpoint
from manyeyes.openai_adapter.request_mapping import ChatRequest, fill_template
from manyeyes.openai_error import ApiError


def endpoint(template: Any, **more: Any) -> Endpoint:
    return Endpoint(url="http://h/generate", template=template, answer="$.text", **more)


def question(prompt: str = "Hello", pictures: tuple[str, ...] = (), **more: Any) -> ChatRequest:
    fields = {"model": "m", "temperature": None, "max_tokens": None, "stream": False, "include_usage": False} | more
    return ChatRequest(prompt=prompt, pictures=pictures, **fields)


def filled(template: Any, asked: ChatRequest, stream: bool = False) -> Any:
    return fill_template(endpoint(template), asked, "vendor-2", stream)


@pytest.mark.parametrize(
    "prompt",
    ['"}], "admin": true, [{"', "\\", "line\nbreak\ttab\x00", "{USER_PROMPT}{MODEL_NAME}{SECRET:a}", "\u2028 \U0001f600 ü"],
)  # fmt: skip
def test_no_prompt_breaks_out_of_its_string_or_is_filled_itself(prompt: str) -> None:
    body = filled({"a": "Q: {USER_PROMPT}", "model": "{MODEL_NAME}"}, question(prompt))
    assert json.loads(json.dumps(body)) == {"a": f"Q: {prompt}", "model": "vendor-2"}


def test_numbers_and_switches_become_what_they_are_and_are_left_out_where_nothing_is_said() -> None:
    template = {
        "p": "{USER_PROMPT}",
        "o": {"t": "{MODEL_TEMPERATURE}", "n": "{MAX_TOKENS}"},
        "s": "{STREAM}",
        "kept": {},
    }
    assert filled(template, question(temperature=0, max_tokens=9), stream=True) == {
        "p": "Hello", "o": {"t": 0, "n": 9}, "s": True, "kept": {},
    }  # fmt: skip
    assert filled(template, question()) == {"p": "Hello", "s": False, "kept": {}}


def test_a_list_item_is_repeated_for_every_picture() -> None:
    template = {
        "messages": [{"role": "user", "content": [{"text": "{USER_PROMPT}"}, {"image": {"url": "{IMAGE_URL}"}}]}]
    }
    two = filled(template, question(pictures=("u1", "u2")))
    assert two["messages"][0]["content"] == [{"text": "Hello"}, {"image": {"url": "u1"}}, {"image": {"url": "u2"}}]
    assert filled(template, question())["messages"][0]["content"] == [{"text": "Hello"}]


def test_an_item_that_also_holds_the_prompt_is_never_repeated_or_lost() -> None:
    template = [{"prompt": "{USER_PROMPT}", "image": "{IMAGE_URL}"}]
    assert filled(template, question(pictures=("u",))) == [{"prompt": "Hello", "image": "u"}]
    assert filled(template, question()) == [{"prompt": "Hello"}]
    with pytest.raises(ApiError, match="one picture"):
        filled(template, question(pictures=("u1", "u2")))


def test_a_picture_inside_the_prompts_own_string_is_empty_where_there_is_none() -> None:
    template = {"p": "<img src={IMAGE_URL}> {USER_PROMPT}"}
    assert filled(template, question(pictures=("u",))) == {"p": "<img src=u> Hello"}
    assert filled(template, question()) == {"p": "<img src=> Hello"}


def test_pictures_without_a_place_are_refused() -> None:
    with pytest.raises(ApiError, match="takes no pictures"):
        filled({"p": "{USER_PROMPT}"}, question(pictures=("u",)))


def test_a_template_given_as_text_may_have_its_numbers_without_quotes() -> None:
    text = '{"p": "{USER_PROMPT} \\"{MODEL_NAME}\\"", "t": {MODEL_TEMPERATURE}}'
    assert filled(text, question(temperature=0.5)) == {"p": 'Hello "vendor-2"', "t": 0.5}


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ({"p": "prompt"}, "{USER_PROMPT} in it"),
        ({"{USER_PROMPT}": 1}, "{USER_PROMPT} in it"),
        ("{USER_PROMPT}", "a JSON document"),
        (7, "a JSON document"),
        ({"p": "{USER_PROMPT}", "x": "{IMAGE}"}, "not {IMAGE}"),
        ({"p": "{USER_PROMPT}", "x": "is {STREAM}"}, "alone as a value"),
        ([[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[["{USER_PROMPT}"]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]], "at most 30 levels"),
        ("[" * 100_000, "a JSON document"),
        ({"p": "{USER_PROMPT}", "day": date(2026, 11, 21)}, "values text, numbers"),
        ({"p": "{USER_PROMPT}", 7: "x"}, "keys are text"),
        ({"p": "{USER_PROMPT}", "x": float("nan")}, "values text, numbers"),
    ],
    ids=str,
)
def test_a_template_that_cannot_be_is_refused_with_what_it_wants(template: Any, words: str) -> None:
    with pytest.raises(ValidationError) as refused:
        endpoint(template)
    assert words in str(refused.value)


def test_an_endpoint_names_the_files_it_needs() -> None:
    headers = {"A": "Bearer {SECRET:a.key}", "B": "{SECRET:b.key}{SECRET:c.key}", "D": "plain"}
    one = endpoint({"p": "{USER_PROMPT}"}, headers=headers, ca_file="d.crt")
    assert one.secret_files == ["a.key", "b.key", "c.key", "d.crt"]
