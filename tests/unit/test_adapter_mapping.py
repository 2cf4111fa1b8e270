"""What the adapter reads and fills: chat requests, request templates, and answers of other APIs."""

import json
from datetime import date
from typing import Any

import pytest
from pydantic import ValidationError

from manyeyes.config.custom_endpoint import Endpoint
from manyeyes.openai_adapter import request_mapping, response_mapping
from manyeyes.openai_adapter.request_mapping import ChatRequest, fill_template
from manyeyes.openai_adapter.response_mapping import StreamError, StreamParser
from manyeyes.openai_error import ApiError


def endpoint(template: Any, **more: Any) -> Endpoint:
    return Endpoint(url="http://h/generate", template=template, answer="$.text", **more)


def question(prompt: str = "Hello", images: tuple[str, ...] = (), **more: Any) -> ChatRequest:
    fields = {"model": "m", "temperature": None, "max_tokens": None, "stream": False, "include_usage": False} | more
    return ChatRequest(prompt=prompt, images=images, **fields)


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
    two = filled(template, question(images=("u1", "u2")))
    assert two["messages"][0]["content"] == [{"text": "Hello"}, {"image": {"url": "u1"}}, {"image": {"url": "u2"}}]
    assert filled(template, question())["messages"][0]["content"] == [{"text": "Hello"}]


def test_an_item_that_also_holds_the_prompt_is_never_repeated_or_lost() -> None:
    template = [{"prompt": "{USER_PROMPT}", "image": "{IMAGE_URL}"}]
    assert filled(template, question(images=("u",))) == [{"prompt": "Hello", "image": "u"}]
    assert filled(template, question()) == [{"prompt": "Hello"}]
    with pytest.raises(ApiError, match="one image"):
        filled(template, question(images=("u1", "u2")))


def test_a_picture_inside_the_prompts_own_string_is_empty_where_there_is_none() -> None:
    template = {"p": "<img src={IMAGE_URL}> {USER_PROMPT}"}
    assert filled(template, question(images=("u",))) == {"p": "<img src=u> Hello"}
    assert filled(template, question()) == {"p": "<img src=> Hello"}


def test_pictures_without_a_place_are_refused() -> None:
    with pytest.raises(ApiError, match="does not accept images"):
        filled({"p": "{USER_PROMPT}"}, question(images=("u",)))


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
        ({"p": "{USER_PROMPT}", "x": "{IMAGE}"}, "without {IMAGE}"),
        ({"p": "{USER_PROMPT}", "x": "is {STREAM}"}, "as a whole value"),
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


def prompt(*messages: tuple[str, Any]) -> str:
    return request_mapping.parse_chat_request(
        {"messages": [{"role": role, "content": content} for role, content in messages]}
    ).prompt


def test_one_user_turn_is_its_text_after_the_instructions() -> None:
    assert prompt(("user", "Hi")) == "Hi"
    assert prompt(("system", "Be brief."), ("user", "Hi")) == "Be brief.\n\nHi"
    assert prompt(("user", [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}])) == "a\nb"


def test_pictures_are_taken_in_the_order_of_the_turns_and_leave_no_mark_in_the_prompt() -> None:
    def picture(url: str) -> dict[str, object]:
        return {"type": "image_url", "image_url": {"url": url}}

    content = [picture("a"), {"type": "text", "text": "What is it?"}, picture("b")]
    turns = [("user", content), ("assistant", "Cats."), ("user", [picture("c")])]
    asked = request_mapping.parse_chat_request({"messages": [{"role": who, "content": said} for who, said in turns]})
    assert asked.images == ("a", "b", "c")
    assert asked.prompt == "User: What is it?\n\nAssistant: Cats.\n\nUser: \n\nAssistant:"


def test_several_turns_are_written_one_after_the_other_and_the_assistant_goes_on() -> None:
    turns = [("developer", "Be brief."), ("user", "Hi"), ("assistant", None), ("tool", "7"), ("user", "And?")]
    assert prompt(*turns) == "Be brief.\n\nUser: Hi\n\nAssistant: \n\nTool: 7\n\nUser: And?\n\nAssistant:"


@pytest.mark.parametrize(
    "body", [[], None, {}, {"messages": {}}, {"messages": ["x"]}, {"messages": [{"role": "user", "content": 7}]},
             {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}],
)  # fmt: skip
def test_what_is_no_chat_request_is_refused(body: Any) -> None:
    with pytest.raises(ApiError) as refused:
        request_mapping.parse_chat_request(body)
    assert refused.value.status == 400


def read(stream: bytes, at_a_time: int) -> list[Any]:
    events = StreamParser()
    found = [
        document
        for start in range(0, len(stream), at_a_time)
        for document in events.take(stream[start : start + at_a_time])
    ]
    return [*found, *events.end()]


@pytest.mark.parametrize("at_a_time", [1, 3, 1000])
@pytest.mark.parametrize(
    "stream",
    [
        b'data: {"t": "\xc3\xbc"}\n\ndata: {"t": 2}\n\ndata: [DONE]\n\ndata: {"t": 3}\n\n',
        b': hello\r\nevent: x\r\nid: 7\r\ndata: {"t":\r\ndata: "\xc3\xbc"}\r\n\r\ndata:{"t": 2}\r\n\r\n',
        b'{"t": "\xc3\xbc"}\n\n{"t": 2}',
        b'data: {"t": "\xc3\xbc"}\n\ndata: {"t": 2}',
    ],
    ids=["events", "fields-and-comments", "lines", "cut-end"],
)
def test_events_and_lines_are_read_however_the_bytes_are_cut(stream: bytes, at_a_time: int) -> None:
    assert read(stream, at_a_time) == [{"t": "ü"}, {"t": 2}]


@pytest.mark.parametrize(
    "stream",
    [b"data: {\n\n", b"{\n", b"data: \xff\n\n", b"[" * 50_000 + b"\n", b'{"t": "\\ud800"}\n', b"x" * (2 << 20)],
)
def test_what_is_no_stream_of_json_is_told(stream: bytes) -> None:
    with pytest.raises(StreamError):
        read(stream, 65_536)


def endpoint_with(**paths: Any) -> Endpoint:
    return Endpoint.model_validate({"url": "http://h/", "template": {"p": "{USER_PROMPT}"}, "answer": "$.a"} | paths)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("$.a", "x"),
        ("$.parts[*].text", "onetwo"),
        ("$.parts[?@.kind == 'b'].text", "two"),
        ("$.number", "7"),
        ("$.nothing", None),
        ("$.null", None),
        ("$['quoted name']", "q"),
    ],
)
def test_the_answer_is_found_by_its_path(path: str, expected: str | None) -> None:
    document = {
        "a": "x", "parts": [{"kind": "a", "text": "one"}, {"kind": "b", "text": "two"}], "number": 7, "null": None,
        "quoted name": "q",
    }  # fmt: skip
    assert response_mapping.extract_text(path, document) == expected


def test_a_path_to_what_is_no_text_is_told() -> None:
    with pytest.raises(response_mapping.ExtractionError, match="selects a dict"):
        response_mapping.extract_text("$.a", {"a": {}})


@pytest.mark.parametrize("document", ['"{\\"a\\": 1}"', "7", "null", "[]"])
def test_a_document_without_the_path_has_no_answer(document: str) -> None:
    assert response_mapping.extract_text("$.a", json.loads(document)) is None


def test_usage_is_told_only_where_both_numbers_are_there() -> None:
    counted = endpoint_with(usage={"prompt_tokens": "$.u.in", "completion_tokens": "$.u.out"})
    assert response_mapping.extract_usage(counted, {"u": {"in": 3, "out": 4}}) == {
        "prompt_tokens": 3,
        "completion_tokens": 4,
        "total_tokens": 7,
    }
    for wrong in ({"in": 3}, {"in": 3, "out": "4"}, {"in": True, "out": 1}, {"in": -1, "out": 1}):
        assert response_mapping.extract_usage(counted, {"u": wrong}) is None
    assert response_mapping.extract_usage(endpoint_with(), {"u": {"in": 3, "out": 4}}) is None


@pytest.mark.parametrize(
    ("said", "expected"), [("MAX_TOKENS", "length"), ("length", "length"), ("EOS", "stop"), (None, None)]
)
def test_why_it_stopped_is_length_or_stop(said: str | None, expected: str | None) -> None:
    assert response_mapping.extract_finish_reason(endpoint_with(finish_reason="$.why"), {"why": said}) == expected
