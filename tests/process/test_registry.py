"""The registry as its callers see it: the controller as a process, over HTTP."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.eventually import eventually
from tests.process.stand import Stand, stand

KEY = "an-admin-key-for-these-tests"
AUTHORIZED = {"Authorization": f"Bearer {KEY}"}


def document() -> dict[str, Any]:
    return {
        "pools": [{"name": "big", "model": "org/Big-VL", "aliases": ["large"]}, {"name": "small", "model": "org/Small-VL"}],
        "engines": [{"name": "big-0", "pool": "big"}, {"name": "big-1", "pool": "big"}],
    }  # fmt: skip


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    folder = tmp_path_factory.mktemp("stand")
    (folder / "secrets").mkdir()
    (folder / "secrets/admin.key").write_text(f"{KEY}\n")
    with stand(folder, document()) as running:
        running.all_up({"big-0", "big-1"})
        yield running


def call(running: Stand, method: str, path: str, headers: dict[str, str] | None = None, **more: Any) -> httpx.Response:
    url = f"http://127.0.0.1:{running.ports['controller']}/api{path}"
    return running.client.request(method, url, headers=AUTHORIZED if headers is None else headers, **more)


def told(reply: httpx.Response) -> tuple[int, str]:
    error = reply.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"].strip()
    return reply.status_code, error["code"]


def test_a_drained_engine_gets_nothing_until_it_is_resumed(cluster: Stand) -> None:
    reply = call(cluster, "POST", "/engines/big-0/drain", json={"reason": "a new driver"})
    assert reply.json() == {"name": "big-0", "state": "draining", "held": True, "in_flight": reply.json()["in_flight"]}
    assert call(cluster, "POST", "/engines/big-0/drain").json()["held"] is True
    cluster.answers_from("big", {"big-1"})
    assert any("a new driver" in event["sentence"] for event in call(cluster, "GET", "/events", {}).json())
    reply = call(cluster, "POST", "/engines/big-0/resume")
    assert (reply.json()["state"], reply.json()["held"]) == ("up", False)
    cluster.answers_from("big", {"big-0", "big-1"})


def test_an_unknown_engine_is_told_with_those_there_are(cluster: Stand) -> None:
    for path in ("/engines/gpu-7/drain", "/engines/gpu-7/resume"):
        reply = call(cluster, "POST", path)
        assert told(reply) == (404, "engine_not_found")
        assert "big-0, big-1" in reply.json()["error"]["message"]


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, (401, "missing_admin_key")),
        ({"Authorization": "Bearer"}, (401, "missing_admin_key")),
        ({"Authorization": "Bearer something-else-altogether"}, (401, "wrong_admin_key")),
        ({"Authorization": "Bearer schön".encode()}, (401, "wrong_admin_key")),
        # A browser's password is no key for a change: a page elsewhere can make a browser send it.
        (httpx.BasicAuth("x", KEY), (401, "missing_admin_key")),
    ],
)  # fmt: skip
def test_a_change_wants_the_admin_key(cluster: Stand, headers: Any, expected: tuple[int, str]) -> None:
    more = {"headers": headers} if isinstance(headers, dict) else {"headers": {}, "auth": headers}
    reply = call(cluster, "POST", "/engines/big-0/drain", **more)
    assert told(reply) == expected
    assert reply.headers["WWW-Authenticate"] == "Bearer"
    assert KEY not in reply.text
    assert KEY not in cluster.log("controller")


def test_without_a_key_file_every_change_is_refused_and_a_new_one_counts_at_once(cluster: Stand) -> None:
    file = cluster.folder / "secrets/admin.key"
    try:
        for text, words in ((None, "make up"), ("short", "fewer than 16"), (b"\xff" * 40, "cannot be read")):
            file.unlink(missing_ok=True)
            if text is not None:
                file.write_bytes(text.encode() if isinstance(text, str) else text)
            reply = call(cluster, "POST", "/engines/big-0/resume")
            assert told(reply) == (403, "no_admin_key")
            assert words in reply.json()["error"]["message"]
        file.write_text("another-key-of-this-test")
        assert told(call(cluster, "POST", "/engines/big-0/resume")) == (401, "wrong_admin_key")
        other = {"Authorization": "Bearer another-key-of-this-test"}
        assert call(cluster, "POST", "/engines/big-0/resume", other).status_code == 200
    finally:
        file.write_text(KEY)
    assert call(cluster, "GET", "/events", {}).status_code == 200


def test_a_body_beyond_1_mib_is_refused_with_and_without_its_length(cluster: Stand) -> None:
    large = b'{"reason": "' + b"x" * (1 << 20) + b'"}'
    json = {"Content-Type": "application/json", **AUTHORIZED}
    assert told(call(cluster, "POST", "/engines/big-0/resume", json, content=large)) == (413, "request_too_large")
    pieces = (large[at : at + 65536] for at in range(0, len(large), 65536))
    assert told(call(cluster, "POST", "/engines/big-0/resume", json, content=pieces)) == (413, "request_too_large")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"{", "not valid JSON"),
        (b'{"why": "x"}', "why is not a setting"),
        (b'{"reason": 7}', "reason wants text, found 7"),
        (b'{"reason": "two\\nlines"}', "reason wants"),
        (b"[]", "wants"),
    ],
)
def test_a_body_that_is_wrong_is_told_by_its_field(cluster: Stand, body: bytes, words: str) -> None:
    headers = {"Content-Type": "application/json", **AUTHORIZED}
    reply = call(cluster, "POST", "/engines/big-0/resume", headers, content=body)
    assert reply.status_code == 422
    assert words in reply.json()["error"]["message"]


def test_a_path_or_method_that_does_not_exist_is_told_in_the_same_form(cluster: Stand) -> None:
    assert told(call(cluster, "GET", "/nowhere")) == (404, "not_found")
    assert told(call(cluster, "PUT", "/engines/big-0/drain")) == (405, "method_not_allowed")


def test_the_disk_and_the_memory_of_a_path_are_not_asked_for_names_of_a_megabyte(
    cluster: Stand, tmp_path: Path
) -> None:
    reply = call(cluster, "POST", f"/engines/{'x' * 60_000}/drain")
    assert reply.status_code in (404, 414)
    assert len(reply.text) < 1000
    assert eventually(lambda: call(cluster, "GET", "/events", {}).status_code == 200, 10)
