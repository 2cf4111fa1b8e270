import pytest

from manyeyes.sse import EventStreamParser

STREAM = b': alive\n\ndata: {"a":\ndata: 1}\n\nevent: x\nid: 7\ndata:two\n\ndata: [DONE]\n\n'
EVENTS = [b'{"a":\n1}', b"two", b"[DONE]"]


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
def test_lines_may_end_with_lf_crlf_or_cr_wherever_the_pieces_are_cut(line_end: bytes) -> None:
    stream = STREAM.replace(b"\n", line_end)
    for cut in range(len(stream) + 1):
        parser = EventStreamParser()
        assert parser.feed(stream[:cut]) + parser.feed(stream[cut:]) == EVENTS, cut


def test_each_byte_may_come_alone() -> None:
    parser, found = EventStreamParser(), []
    for byte in STREAM.replace(b"\n", b"\r\n"):
        found += parser.feed(bytes([byte]))
    assert found == EVENTS


def test_an_event_is_given_out_with_the_bytes_that_end_it() -> None:
    parser = EventStreamParser()
    assert parser.feed(b"data: one\r\n") == []
    assert parser.feed(b"\r") == [b"one"]


def test_an_event_that_is_not_ended_is_not_given_out() -> None:
    assert EventStreamParser().feed(b"data: one\n") == []
