"""Unfinished and large requests: counted in bytes, for each client and for all; the number of requests of one client."""

import contextlib
import json
import socket
from collections.abc import Iterator

import httpx
import pytest

from manyeyes.devcluster.cluster import LocalCluster, local_cluster
from manyeyes.devcluster.eventually import eventually
from tests.integration.documents import document

MIB = 1024**2


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    limits = {
        "max_body_mb": 8,
        "max_client_bodies_mb": 10,
        "max_bodies_mb": 15,
        "max_client_requests": 12,
        "workers": 1,
    }
    pools = document({"big": ["big-0"]}, gateway=limits)
    with local_cluster(tmp_path_factory.mktemp("local_cluster"), pools) as running:
        running.all_up({"big-0"})
        yield running


@contextlib.contextmanager
def unfinished(
    cluster: LocalCluster, *lengths: int | None, host: str = "127.0.0.1", sent: int = 1
) -> Iterator[list[socket.socket]]:
    """Uploads with these lengths (None: chunked) from the address `host`, of which `sent` bytes arrive."""
    with contextlib.ExitStack() as stack:
        made = []
        for length in lengths:
            client = stack.enter_context(
                socket.create_connection(("127.0.0.1", cluster.ports["gateway"]), 20, (host, 0))
            )
            size = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
            data = b"%x\r\n%b" % (8 * MIB, b"x" * sent) if length is None else b"x" * sent
            client.sendall(f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n{size}\r\n\r\n".encode() + data)
            made.append(client)
        yield made


def refusal(client: socket.socket) -> tuple[int, str, bool]:
    """Status, code, and whether there is a Retry-After."""
    reply = b""
    while b'"code":"' not in reply:
        chunk = client.recv(65_536)
        assert chunk, reply
        reply += chunk
    head, _, body = reply.partition(b"\r\n\r\n")
    return int(head.split()[1]), str(json.loads(body)["error"]["code"]), b"Retry-After: 5" in head


def large(cluster: LocalCluster, mib: float = 6) -> httpx.Response:
    return cluster.ask(user="x" * int(mib * MIB))


def small(cluster: LocalCluster) -> int:
    return cluster.ask().status_code


def free(cluster: LocalCluster) -> bool:
    """Whether nothing is counted: a body as large as the client's limit allows passes."""
    return large(cluster, 7.9).status_code == 200 and large(cluster, 7.9).status_code == 200


def test_a_clients_unfinished_uploads_are_limited_and_small_requests_pass(cluster: LocalCluster) -> None:
    with unfinished(cluster, 6 * MIB, 6 * MIB) as (_, second):
        assert refusal(second) == (429, "upload_limit_exceeded", True)
        refused = large(cluster)
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "upload_limit_exceeded")
        assert "max_client_bodies_mb" in refused.json()["error"]["message"]
        assert small(cluster) == 200
    eventually(lambda: large(cluster).status_code == 200, 20, 0.2, "the place is free again")


def test_all_unfinished_uploads_are_limited_with_503(cluster: LocalCluster) -> None:
    with (
        unfinished(cluster, 7 * MIB, host="127.0.0.2"),
        unfinished(cluster, 7 * MIB, host="127.0.0.3"),
        unfinished(cluster, 7 * MIB, host="127.0.0.4") as (third,),
    ):
        assert refusal(third) == (503, "uploads_full", True)
        assert small(cluster) == 200
    eventually(lambda: large(cluster).status_code == 200, 20, 0.2, "the place is free again")


def test_a_client_gets_half_of_what_others_leave(cluster: LocalCluster) -> None:
    with unfinished(cluster, 7 * MIB, host="127.0.0.2"), unfinished(cluster, 2 * MIB, 2 * MIB, host="127.0.0.3"):
        with unfinished(cluster, MIB, MIB, MIB, host="127.0.0.4") as (_, _, third):  # others leave 4 MiB
            assert refusal(third) == (429, "upload_limit_exceeded", True)
        with unfinished(cluster, 2 * MIB, host="127.0.0.3") as (third,):  # others leave 8 MiB
            assert refusal(third) == (429, "upload_limit_exceeded", True)
    eventually(lambda: large(cluster).status_code == 200, 20, 0.2, "the place is free again")


def test_an_upload_without_a_length_counts_as_the_largest_until_it_was_read(cluster: LocalCluster) -> None:
    with unfinished(cluster, None, None) as (_, second):
        assert refusal(second) == (429, "upload_limit_exceeded", True)
    eventually(lambda: large(cluster).status_code == 200, 20, 0.2, "the place is free again")
    body = json.dumps({"model": "big", "messages": [{"role": "user", "content": "x"}], "max_tokens": 2}).encode()
    for _ in range(5):
        reply = httpx.post(
            f"{cluster.url}/v1/chat/completions",
            content=iter([body[:9], body[9:]]),
            headers={"Content-Type": "application/json"},
            timeout=30,
        )
        assert reply.status_code == 200, reply.text


def test_every_end_of_a_request_frees_its_place(cluster: LocalCluster) -> None:
    for _ in range(4):
        assert large(cluster).status_code == 200  # answered
        assert cluster.ask("no such model", user="x" * 6 * MIB).status_code == 404
        with unfinished(cluster, 6 * MIB, sent=5 * MIB):  # cut, from a file
            pass
        eventually(lambda: large(cluster).status_code != 429, 20, 0.2, "the cut upload ended")
    assert eventually(lambda: free(cluster), 20, 0.2, "nothing is counted")


def test_one_request_as_large_as_allowed_passes_whatever_the_limits_are(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    limits = {"max_body_mb": 8, "max_client_bodies_mb": 1, "max_bodies_mb": 1}
    pools = document({"big": ["big-0"]}, gateway=limits)
    with local_cluster(tmp_path_factory.mktemp("local_cluster"), pools) as running:
        running.all_up({"big-0"})
        assert large(running).status_code == 200
        assert large(running).status_code == 200


def test_a_body_that_cannot_be_written_is_503(cluster: LocalCluster) -> None:
    folder = cluster.folder / "nginx/tmp/client_body"
    folder.rename(folder.with_name("elsewhere"))
    try:
        reply = large(cluster)
    finally:
        folder.with_name("elsewhere").rename(folder)
    assert (reply.status_code, reply.json()["error"]["code"]) == (503, "uploads_full")
    assert reply.headers["Retry-After"] == "5"
    assert large(cluster).status_code == 200


def test_a_clients_requests_at_the_same_time_are_limited(cluster: LocalCluster) -> None:
    with unfinished(cluster, *[100] * 12), unfinished(cluster, 100) as (one_more,):
        assert refusal(one_more) == (429, "rate_limit_exceeded", True)
        with unfinished(cluster, 2, host="127.0.0.2", sent=2) as (another,):
            assert refusal(another)[0] == 400, "another client is served"
    eventually(lambda: small(cluster) == 200, 20, 0.2, "the place is free again")


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_a_wrong_method_is_refused_before_its_body_is_read(cluster: LocalCluster, method: str) -> None:
    with socket.create_connection(("127.0.0.1", cluster.ports["gateway"]), timeout=20) as client:
        client.sendall(f"{method} /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 5000000\r\n\r\n".encode())
        assert refusal(client)[:2] == (405, "method_not_allowed")
