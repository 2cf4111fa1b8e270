"""Requests that nginx refuses before a location is known: a 4xx in OpenAI's form, one line in the log, no error lines."""

import http.server
import json
import random
import socket
import struct
import threading
from collections.abc import Iterator

import pytest

from manyeyes.devcluster.cluster import LocalCluster, local_cluster
from manyeyes.devcluster.eventually import eventually
from tests.integration.documents import document


class Page(http.server.BaseHTTPRequestHandler):
    """Answers every path, as the web page would."""

    def handle_one_request(self) -> None:
        self.rfile.readline(1 << 20)
        self.wfile.write(b"HTTP/1.0 200 OK\r\nContent-Length: 4\r\n\r\npage")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    pools = document({"big": ["big-0"]}, gateway={"workers": 1})
    with local_cluster(tmp_path_factory.mktemp("local_cluster"), pools) as running:
        running.all_up({"big-0"})
        page = http.server.ThreadingHTTPServer(("127.0.0.1", running.ports["webui"]), Page)
        thread = threading.Thread(target=page.serve_forever, daemon=True)
        thread.start()
        yield running
        page.shutdown()
        page.server_close()


def send(cluster: LocalCluster, data: bytes, port: str = "gateway") -> bytes:
    """The response to bytes that are sent unchanged, after which nothing more is sent."""
    with socket.create_connection(("127.0.0.1", cluster.ports[port]), timeout=20) as client:
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        reply = b""
        try:
            while chunk := client.recv(65_536):
                reply += chunk
        except ConnectionResetError:
            pass
    return reply


def lines(cluster: LocalCluster) -> list[dict[str, object]]:
    return [json.loads(line) for line in cluster.log("access").splitlines() if line.endswith("}")]


def error_lines(cluster: LocalCluster) -> list[str]:
    return [line for line in cluster.log("nginx").splitlines() if "[error]" in line or "[alert]" in line]


HOST = b"Host: x\r\nConnection: close\r\n\r\n"
MALFORMED = {
    "path above the root": (b"GET /../ HTTP/1.1\r\n" + HOST, 400),
    "path above the root, encoded": (b"GET /%2e%2e/%2e%2e/x HTTP/1.1\r\n" + HOST, 400),
    "NUL in the path": (b"GET /%00 HTTP/1.1\r\n" + HOST, 400),
    "broken percent": (b"GET /%zz HTTP/1.1\r\n" + HOST, 400),
    "asterisk": (b"OPTIONS * HTTP/1.1\r\n" + HOST, 400),
    "no path": (b"GET HTTP/1.1\r\n" + HOST, 400),
    "relative path": (b"GET v1/models HTTP/1.1\r\n" + HOST, 400),
    "lower case method": (b"get / HTTP/1.1\r\n" + HOST, 400),
    "control characters": (b"\x00\x01\x02\r\n" + HOST, 400),
    "TLS on a plain port": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n", 400),
    "HTTP/2.0 in the line": (b"GET /healthz HTTP/2.0\r\n" + HOST, 505),
    "HTTP/9.9 in the line": (b"GET /healthz HTTP/9.9\r\n" + HOST, 505),
    "URI of 100 KB": (b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n" + HOST, 414),
    "CONNECT": (b"CONNECT big-0:8000 HTTP/1.1\r\n" + HOST, 405),
    "TRACE": (b"TRACE / HTTP/1.1\r\n" + HOST, 405),
    "no Host": (b"GET /v1/models HTTP/1.1\r\nConnection: close\r\n\r\n", 400),
    "unknown Transfer-Encoding": (b"POST /v1/completions HTTP/1.1\r\nTransfer-Encoding: xchunked\r\n" + HOST, 400),
    "two lengths": (b"POST /v1/completions HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n" + HOST, 400),
    "headers of 100 KB": (b"GET /v1/models HTTP/1.1\r\n" + b"X-A: " + b"a" * 100_000 + b"\r\n" + HOST, 400),
}


@pytest.mark.parametrize("port", ["gateway", "page"])
@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_request_gets_a_4xx_in_openais_form_and_one_log_line(
    cluster: LocalCluster, case: str, port: str
) -> None:
    data, status = MALFORMED[case]
    before, errors = len(lines(cluster)), len(error_lines(cluster))
    head, _, body = send(cluster, data, port).partition(b"\r\n\r\n")
    assert int(head.split()[1]) == status, head
    assert b"application/json" in head
    assert set(json.loads(body)["error"]) == {"message", "type", "param", "code"}
    logged = eventually(lambda: (found := lines(cluster)[before:]) and found, 10, 0.1, "it is logged")
    assert [line["status"] for line in logged] == [status]
    assert str(logged[0]["path"]) in data.decode("latin-1")
    assert len(error_lines(cluster)) == errors


def test_http_2_without_a_path_is_400_and_one_log_line(cluster: LocalCluster) -> None:
    def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
        return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload

    headers = b"\x82\x86\x41\x01x"  # :method GET, :scheme http, :authority x
    before, errors = len(lines(cluster)), len(error_lines(cluster))
    request = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b"") + frame(1, 5, 1, headers)
    with socket.create_connection(("127.0.0.1", cluster.ports["gateway"]), timeout=20) as client:
        client.sendall(request)
        reply = b""
        while b'"code":"' not in reply:
            chunk = client.recv(65_536)
            assert chunk, reply
            reply += chunk
    assert json.loads(reply[reply.index(b'{"error"') :].split(b"\n")[0])["error"]["type"] == "invalid_request_error"
    logged = eventually(lambda: (found := lines(cluster)[before:]) and found, 10, 0.1, "it is logged")
    assert [line["status"] for line in logged] == [400]
    assert len(error_lines(cluster)) == errors


METHODS = [b"GET", b"POST", b"OPTIONS", b"HEAD", b"PROPFIND", b"G\x00T", b"get", b""]
VERSIONS = [b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.0", b"HTTP/0.9", b"HTTP/2.0", b"HTTP/1.", b"http/1.1", b"", b"X"]


def request_line(dice: random.Random) -> bytes:
    letters = dice.choice([bytes(range(256)), b"/.%?#*:@ aZ0+\\~", b"/.%02eEfF5c"])
    path = bytes(dice.choices(letters, k=dice.randrange(30)))
    path = dice.choice([b"", b"/", b"/v1/", b"http://x/"]) + path
    line = path if dice.randrange(8) == 0 else b" ".join([dice.choice(METHODS), path, dice.choice(VERSIONS)])
    return line.replace(b"\r", b"").replace(b"\n", b"").lstrip() or b"?"


def test_no_request_line_gets_a_5xx_or_an_error_line(cluster: LocalCluster) -> None:
    dice = random.Random(17)
    for _ in range(300):
        line, errors = request_line(dice), len(error_lines(cluster))
        reply = send(cluster, b"%s\r\n%s" % (line, HOST))
        if reply.startswith(b"HTTP/"):
            status = int(reply.split()[1])
            assert status < 500 or status == 505, (line, reply[:300])
            assert b"<html" not in reply, (line, reply[:300])
        assert len(error_lines(cluster)) == errors, (line, error_lines(cluster)[-1])


def test_many_request_lines_leave_as_many_log_lines(cluster: LocalCluster) -> None:
    def mark(name: str) -> list[str]:
        """Logs a request to that path, and returns the paths in the log up to it."""
        send(cluster, b"GET /v1/models/%s HTTP/1.1\r\n%s" % (name.encode(), HOST))
        path = f"/v1/models/{name}"

        def paths() -> list[str]:
            found = [str(line["path"]) for line in lines(cluster)]
            return found if path in found else []

        return eventually(paths, 10, 0.1, "it is logged")

    before = mark("first")
    for data, _ in MALFORMED.values():
        send(cluster, data)
    assert len(mark("last")) == len(before) + len(MALFORMED) + 1
