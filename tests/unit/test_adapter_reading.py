"""What the adapter reads: chat requests on one side, foreign answers on the other."""

import json
from typing import Any

import pytest

from manyeyes.config.custom_endpoint import Endpoint
from manyeyes.openai_adapter import request_mapping, response_mapping
from manyeyes.openai_adapter.response_mapping import StreamError, StreamParser
from manyeyes.openai_error import ApiError


def prompt(*messages: tuple[str, Any]) -> str:
    return request_mapping.parse_chat_request(
        {"messages": [{"role": role, "content": content} for role, content in messages]}
    ).prompt


def test_one_user_turn_is_its_text_after_the_instructions() -> None:
    assert prompt(("user", "Hi")) == "Hi"
    assert prompt(("system", "Be brief."), ("user", "Hi")) == "Be brief.\n\nHi"
    assert prompt(("user", [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}])) == "a\nb"


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


def endpoint(**paths: Any) -> Endpoint:
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
    with pytest.raises(response_mapping.ExtractionError, match="leads to a dict"):
        response_mapping.extract_text("$.a", {"a": {}})


@pytest.mark.parametrize("document", ['"{\\"a\\": 1}"', "7", "null", "[]"])
def test_a_document_without_the_path_has_no_answer(document: str) -> None:
    assert response_mapping.extract_text("$.a", json.loads(document)) is None


def test_usage_is_told_only_where_both_numbers_are_there() -> None:
    counted = endpoint(usage={"prompt_tokens": "$.u.in", "completion_tokens": "$.u.out"})
    assert response_mapping.extract_usage(counted, {"u": {"in": 3, "out": 4}}) == {
        "prompt_tokens": 3,
        "completion_tokens": 4,
        "total_tokens": 7,
    }
    for wrong in ({"in": 3}, {"in": 3, "out": "4"}, {"in": True, "out": 1}, {"in": -1, "out": 1}):
        assert response_mapping.extract_usage(counted, {"u": wrong}) is None
    assert response_mapping.extract_usage(endpoint(), {"u": {"in": 3, "out": 4}}) is None


@pytest.mark.parametrize(
    ("said", "expected"), [("MAX_TOKENS", "length"), ("length", "length"), ("EOS", "stop"), (None, None)]
)
def test_why_it_stopped_is_length_or_stop(said: str | None, expected: str | None) -> None:
    assert response_mapping.extract_finish_reason(endpoint(finish_reason="$.why"), {"why": said}) == expected
