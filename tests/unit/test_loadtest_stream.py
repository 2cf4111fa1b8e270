import orjson
import pytest

from loadtest.virtual_user import CompletionStream


def event(text: str = "", finish: str | None = None, **more: object) -> bytes:
    document = {"choices": [{"delta": {"content": text}, "finish_reason": finish}], **more}
    return b"data: " + orjson.dumps(document) + b"\n\n"


DONE = b"data: [DONE]\n\n"


def heard(*pieces: bytes) -> CompletionStream:
    answer = CompletionStream()
    for at, piece in enumerate(pieces):
        answer.feed(float(at), piece)
    return answer


def test_a_whole_answer_counts_and_each_token_has_its_time() -> None:
    answer = heard(event(""), event("a"), event("b", "stop"), DONE)
    assert answer.failed == ""
    assert answer.tokens_s == [1.0, 2.0]
    assert "".join(answer.text) == "ab"


def test_an_event_that_arrives_in_two_pieces_has_the_time_of_the_second() -> None:
    whole = event("a", "stop")
    answer = heard(whole[:20], whole[20:] + DONE)
    assert answer.tokens_s == [1.0]
    assert answer.failed == ""


def test_usage_knows_how_many_tokens_there_were_where_one_event_holds_several() -> None:
    answer = heard(event("a b c", "length"), event(usage={"completion_tokens": 3}), DONE)
    assert answer.tokens == 3


def test_a_comment_that_keeps_the_connection_alive_is_no_event() -> None:
    assert heard(b": keep-alive\n\n", event("a", "stop"), DONE).failed == ""


@pytest.mark.parametrize(
    ("pieces", "why"),
    [
        ((event("a"), event("", "abort"), DONE), "finish_reason abort"),
        ((event("a"), event("", "error"), DONE), "finish_reason error"),
        ((event("a", "stop"),), "cut before [DONE]"),
        ((event("", "stop"), DONE), "no token"),
        ((event("a"), DONE), "no finish_reason"),
        ((b'data: {"error": {"message": "x"}}\n\n', DONE), "error in the stream"),
        ((event("a"), b"data: {nonsense\n\n", DONE), "an event that is not JSON"),
    ],
)
def test_an_answer_that_is_not_whole_does_not_count(pieces: tuple[bytes, ...], why: str) -> None:
    assert heard(*pieces).failed == why
