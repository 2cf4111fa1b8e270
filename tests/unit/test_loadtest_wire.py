import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from loadtest.http_client import ConnectionBroken, StreamingConnection, TargetUrl, parse_target

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


@contextmanager
def served(*talks: Callable[[socket.socket], None]) -> Iterator[TargetUrl]:
    """A server that takes one connection for each of `talks`, one after the other."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            for talk in talks:
                link, _ = listener.accept()
                with link:
                    link.settimeout(20)
                    talk(link)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield TargetUrl("http", "127.0.0.1", listener.getsockname()[1])
        thread.join(timeout=20)
        assert not thread.is_alive()


def asked(link: socket.socket) -> bytes:
    """One whole request."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += link.recv(4096)
    head, _, body = data.partition(b"\r\n\r\n")
    length = int(next(line for line in head.split(b"\r\n") if line.startswith(b"Content-Length")).split(b":")[1])
    while len(body) < length:
        body += link.recv(4096)
    return head + b"\r\n\r\n" + body


def test_pieces_are_handed_on_as_they_arrive_and_not_when_a_block_is_full() -> None:
    go_on = threading.Event()

    def talk(link: socket.socket) -> None:
        asked(link)
        link.sendall(HEAD + b"5\r\nfirst\r\n")
        assert go_on.wait(20), "the first piece was not handed on before the second was sent"
        link.sendall(b"6\r\nsecond\r\n0\r\n\r\n")

    with served(talk) as to:
        connection = StreamingConnection(to, 10)
        pieces = connection.pieces(connection.post("/v1/x", b"{}", {}))
        at_first, first = next(pieces)
        go_on.set()
        rest = list(pieces)
        connection.close()
    assert first == b"first"
    assert b"".join(piece for _, piece in rest) == b"second"
    assert rest[-1][0] >= at_first


def test_a_connection_is_used_again_and_opened_anew_when_the_server_closed_it_meanwhile() -> None:
    def once(link: socket.socket) -> None:
        asked(link)
        link.sendall(HEAD + b"1\r\na\r\n0\r\n\r\n")
        asked(link)
        link.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nb")
        asked(link)
        link.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nc")

    def again(link: socket.socket) -> None:
        asked(link)
        link.sendall(b"HTTP/1.1 503 Busy\r\nContent-Length: 1\r\n\r\nd")

    with served(once, again) as to:
        connection = StreamingConnection(to, 10)
        got = []
        for _ in range(4):
            reply = connection.post("/v1/x", b"{}", {})
            got.append((reply.status, b"".join(piece for _, piece in connection.pieces(reply))))
        connection.close()
    assert got == [(200, b"a"), (200, b"b"), (200, b"c"), (503, b"d")]


@pytest.mark.parametrize(
    ("sent", "why"),
    [
        (HEAD + b"5\r\nfirst\r\n", "in the middle"),
        (HEAD + b"5\r\nfir", "in the middle"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nfirst", "in the middle"),
        (b"HTTP/1.1 200 OK\r\n\r\nfirst", "unknown length"),
        (b"", "closed before an answer"),
        (b"SMTP ready\r\n", "not HTTP/1.1"),
    ],
)
def test_an_answer_that_is_cut_or_none_is_broken(sent: bytes, why: str) -> None:
    def talk(link: socket.socket) -> None:
        asked(link)
        link.sendall(sent)

    def answer(connection: StreamingConnection) -> list[tuple[float, bytes]]:
        return list(connection.pieces(connection.post("/v1/x", b"{}", {})))

    with served(talk) as to, pytest.raises(ConnectionBroken, match=why):
        answer(StreamingConnection(to, 10))


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://localhost:8080", TargetUrl("http", "localhost", 8080)),
        ("https://host", TargetUrl("https", "host", 443)),
        ("http://host:1/a/v1/", TargetUrl("http", "host", 1, "/a")),
    ],
)
def test_a_url_may_have_a_path_and_a_v1(url: str, expected: TargetUrl) -> None:
    assert parse_target(url) == expected


@pytest.mark.parametrize("url", ["localhost:8080", "ftp://host", ""])
def test_a_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="URL: expected"):
        parse_target(url)
