"""The registry as its callers see it: the controller as a process, over HTTP."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from manyeyes.devcluster.cluster import LocalCluster, local_cluster
from manyeyes.devcluster.eventually import eventually
from manyeyes.devcluster.ports import is_listening
from tests.integration.documents import ADMIN_KEY, document, with_admin_key
from tests.integration.full_disk import full_disk
from tests.integration.registry_client import AUTHORIZED, call, controller_answers, refusal, registered_engines, serve

TWO_POOLS = document({"big": ["big-0", "big-1"], "small": []}, {"big": {"aliases": ["large"]}})


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    with local_cluster(with_admin_key(tmp_path_factory.mktemp("local_cluster")), TWO_POOLS) as running:
        running.all_up({"big-0", "big-1"})
        yield running


def test_a_drained_engine_gets_nothing_until_it_is_resumed(cluster: LocalCluster) -> None:
    reply = call(cluster, "POST", "/engines/big-0/drain", json={"reason": "a new driver"})
    assert reply.json() == {"name": "big-0", "state": "draining", "held": True, "in_flight": reply.json()["in_flight"]}
    assert call(cluster, "POST", "/engines/big-0/drain").json()["held"] is True
    cluster.answers_from("big", {"big-1"})
    assert any("a new driver" in event["sentence"] for event in call(cluster, "GET", "/events", {}).json())
    reply = call(cluster, "POST", "/engines/big-0/resume")
    assert (reply.json()["state"], reply.json()["held"]) == ("up", False)
    cluster.answers_from("big", {"big-0", "big-1"})


def test_an_unknown_engine_is_told_with_those_there_are(cluster: LocalCluster) -> None:
    for path in ("/engines/gpu-7/drain", "/engines/gpu-7/resume"):
        reply = call(cluster, "POST", path)
        assert refusal(reply) == (404, "engine_not_found")
        assert "big-0, big-1" in reply.json()["error"]["message"]


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, (401, "missing_admin_key")),
        ({"Authorization": "Bearer"}, (401, "missing_admin_key")),
        ({"Authorization": "Bearer something-else-altogether"}, (401, "wrong_admin_key")),
        ({"Authorization": "Bearer schön".encode()}, (401, "wrong_admin_key")),
        # A browser's password is no key for a change: a page elsewhere can make a browser send it.
        (httpx.BasicAuth("x", ADMIN_KEY), (401, "missing_admin_key")),
    ],
)  # fmt: skip
def test_a_change_wants_the_admin_key(cluster: LocalCluster, headers: Any, expected: tuple[int, str]) -> None:
    more = {"headers": headers} if isinstance(headers, dict) else {"headers": {}, "auth": headers}
    reply = call(cluster, "POST", "/engines/big-0/drain", **more)
    assert refusal(reply) == expected
    assert reply.headers["WWW-Authenticate"] == "Bearer"
    assert ADMIN_KEY not in reply.text
    assert ADMIN_KEY not in cluster.log("controller")


def test_without_a_key_file_every_change_is_refused_and_a_new_one_counts_at_once(cluster: LocalCluster) -> None:
    file = cluster.folder / "secrets/admin.key"
    try:
        for text, words in ((None, "make up"), ("short", "fewer than 16"), (b"\xff" * 40, "cannot be read")):
            file.unlink(missing_ok=True)
            if text is not None:
                file.write_bytes(text.encode() if isinstance(text, str) else text)
            reply = call(cluster, "POST", "/engines/big-0/resume")
            assert refusal(reply) == (403, "no_admin_key")
            assert words in reply.json()["error"]["message"]
        file.write_text("another-key-of-this-test")
        assert refusal(call(cluster, "POST", "/engines/big-0/resume")) == (401, "wrong_admin_key")
        other = {"Authorization": "Bearer another-key-of-this-test"}
        assert call(cluster, "POST", "/engines/big-0/resume", other).status_code == 200
    finally:
        file.write_text(ADMIN_KEY)
    assert call(cluster, "GET", "/events", {}).status_code == 200


def test_a_body_beyond_1_mib_is_refused_with_and_without_its_length(cluster: LocalCluster) -> None:
    large = b'{"reason": "' + b"x" * (1 << 20) + b'"}'
    json = {"Content-Type": "application/json", **AUTHORIZED}
    assert refusal(call(cluster, "POST", "/engines/big-0/resume", json, content=large)) == (413, "request_too_large")
    pieces = (large[at : at + 65536] for at in range(0, len(large), 65536))
    assert refusal(call(cluster, "POST", "/engines/big-0/resume", json, content=pieces)) == (413, "request_too_large")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"{", "not valid JSON"),
        (b'{"why": "x"}', "why is not a setting"),
        (b'{"reason": 7}', "reason: expected text, got 7"),
        (b'{"reason": "two\\nlines"}', "reason: expected"),
        (b"[]", "expected"),
    ],
)
def test_a_body_that_is_wrong_is_told_by_its_field(cluster: LocalCluster, body: bytes, words: str) -> None:
    headers = {"Content-Type": "application/json", **AUTHORIZED}
    reply = call(cluster, "POST", "/engines/big-0/resume", headers, content=body)
    assert reply.status_code == 422
    assert words in reply.json()["error"]["message"]


def test_a_path_or_method_that_does_not_exist_is_told_in_the_same_form(cluster: LocalCluster) -> None:
    assert refusal(call(cluster, "GET", "/nowhere")) == (404, "not_found")
    assert refusal(call(cluster, "PUT", "/engines/big-0/drain")) == (405, "method_not_allowed")


def test_the_disk_and_the_memory_of_a_path_are_not_asked_for_names_of_a_megabyte(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    reply = call(cluster, "POST", f"/engines/{'x' * 60_000}/drain")
    assert reply.status_code in (404, 414)
    assert len(reply.text) < 1000
    assert eventually(lambda: call(cluster, "GET", "/events", {}).status_code == 200, 10)


def test_an_engine_registered_under_a_model_that_exists_shares_its_load_until_it_is_removed(
    cluster: LocalCluster,
) -> None:
    address = serve(cluster, "extra", "big", "org/Big-VL")
    eventually(lambda: is_listening(cluster.ports["extra"]), 20)
    # By an alias, so that nobody needs to know how pools are called.
    reply = call(cluster, "POST", "/engines", json={"name": "extra", "model": "large", "url": f"http://{address}/v1"})
    assert reply.status_code == 201, reply.text
    told_of = reply.json()
    assert (told_of["pool"], told_of["address"], told_of["registered"], told_of["weight"]) == ("big", address, True, 1)
    assert "The engine does not serve large, auto, so requests" in told_of["notice"]
    assert "--served-model-name big org/Big-VL large auto" in told_of["notice"]
    cluster.answers_from("big", {"big-0", "big-1", "extra"})
    assert registered_engines(cluster)["extra"]["state"] == "up"
    assert refusal(call(cluster, "POST", "/engines", json={"name": "extra", "pool": "big", "address": address})) == (
        409,
        "name_taken",
    )
    assert call(cluster, "POST", "/engines/extra/drain").json()["held"] is True
    cluster.answers_from("big", {"big-0", "big-1"})
    call(cluster, "POST", "/engines/extra/resume")
    assert call(cluster, "DELETE", "/engines/extra").json() == {"name": "extra", "removed": True}
    cluster.answers_from("big", {"big-0", "big-1"})
    assert refusal(call(cluster, "DELETE", "/engines/extra")) == (404, "engine_not_found")
    cluster.kill("extra")


def test_a_weight_changes_an_engines_part_at_once(cluster: LocalCluster) -> None:
    reply = call(cluster, "PATCH", "/engines/big-1", json={"weight": 5})
    assert (reply.status_code, reply.json()["weight"]) == (200, 5)
    assert refusal(call(cluster, "PATCH", "/engines/big-1", json={"weight": 0})) == (422, "invalid_request")
    assert refusal(call(cluster, "PATCH", "/engines/gpu-9", json={"weight": 1})) == (404, "engine_not_found")
    cluster.kill("controller")
    cluster.start_controller()
    controller_answers(cluster)
    assert registered_engines(cluster)["big-1"]["weight"] == 5
    assert call(cluster, "PATCH", "/engines/big-1", json={"weight": 1}).json()["weight"] == 1


def test_models_are_told_with_the_engines_behind_each_name(cluster: LocalCluster) -> None:
    cluster.all_up({"big-0", "big-1"})
    models = {one["name"]: one for one in call(cluster, "GET", "/models", {}).json()["models"]}
    assert set(models) == {"big", "large", "org/Big-VL", "auto"}
    assert models["large"]["pool"] == "big"
    assert models["large"]["engines"] == [{"name": "big-0", "state": "up"}, {"name": "big-1", "state": "up"}]
    assert (models["auto"]["pool"], models["auto"]["up"]) == (None, 2)


def test_pools_come_and_go_and_one_with_engines_stays(cluster: LocalCluster) -> None:
    reply = call(
        cluster, "POST", "/pools", json={"name": "extra", "model": "org/Extra", "aliases": ["more"], "fallback": "big"}
    )
    assert reply.status_code == 201, reply.text
    assert (reply.json()["registered"], reply.json()["total"], reply.json()["fallback"]) == (True, 0, "big")
    assert refusal(call(cluster, "POST", "/pools", json={"name": "extra", "model": "x"})) == (409, "name_taken")
    reply = call(cluster, "POST", "/pools", json={"name": "other", "model": "x", "aliases": ["large"]})
    assert refusal(reply) == (409, "breaks_rules")
    assert "both use the name 'large'" in reply.json()["error"]["message"]
    call(cluster, "POST", "/engines", json={"name": "nobody", "pool": "extra", "address": "127.0.0.1:9"})
    assert refusal(call(cluster, "DELETE", "/pools/extra")) == (409, "pool_not_empty")
    assert call(cluster, "GET", "/pools/extra", {}).json()["engines"] == ["nobody"]
    call(cluster, "DELETE", "/engines/nobody")
    assert call(cluster, "DELETE", "/pools/extra").status_code == 200
    assert refusal(call(cluster, "GET", "/pools/extra", {})) == (404, "pool_not_found")


def test_what_cluster_yaml_says_cannot_be_removed_by_api(cluster: LocalCluster) -> None:
    for path, words in (("/engines/big-0", "drain it"), ("/pools/big", "remove it from cluster.yaml")):
        reply = call(cluster, "DELETE", path)
        assert refusal(reply) == (409, "is_written")
        assert words in reply.json()["error"]["message"]


GOOD = {"name": "new", "pool": "big", "address": "127.0.0.1:9"}


@pytest.mark.parametrize(
    ("body", "expected", "words"),
    [
        (GOOD | {"name": "x" * 1_000_000}, (422, "invalid_request"), "name: expected a name of 1 to 40 lowercase letters"),
        (GOOD | {"name": "Ä b"}, (422, "invalid_request"), "1 to 40"),
        (GOOD | {"pool": "nowhere"}, (422, "pool_not_found"), "Pools: big, small"),
        (GOOD | {"pool": None, "model": "nothing"}, (422, "model_not_found"), "POST /api/pools"),
        (GOOD | {"model": "big"}, (422, "invalid_request"), "exactly one of pool and model"),
        (GOOD | {"url": "http://127.0.0.1:9"}, (422, "invalid_request"), "got address and url"),
        (GOOD | {"weigth": 2}, (422, "invalid_request"), "weigth is not a setting; did you mean weight"),
        (GOOD | {"address": "127.0.0.1:99999"}, (422, "invalid_request"), "port from 1 to 65535"),
        (GOOD | {"address": "[::1]:80"}, (422, "invalid_request"), "an address such as host:8000"),
        (GOOD | {"address": "169.254.169.254:80"}, (403, "address_not_allowed"), "metadata"),
        (GOOD | {"address": "0.0.0.0:8000"}, (403, "address_not_allowed"), "is not the address of a single host"),
        (GOOD | {"address": "10.213.77.2:8081"}, (403, "address_not_allowed"), "part of this cluster"),
        (GOOD | {"address": "gateway:8080"}, (403, "address_not_allowed"), "part of this cluster"),
        (GOOD | {"address": "no.such.host.invalid:80"}, (422, "address_unknown"), "cannot resolve"),
        ({"name": "new", "pool": "big", "url": "ftp://127.0.0.1/"}, (422, "invalid_url"), "begin with http://"),
        ({"name": "new", "pool": "big", "url": "file:///etc/passwd"}, (422, "invalid_url"), "begin with http://"),
        ({"name": "new", "pool": "big", "url": "https://127.0.0.1/"}, (422, "invalid_url"), "`remote`"),
        ({"name": "new", "pool": "big", "url": "http://a:b@127.0.0.1/"}, (422, "invalid_url"), "password"),
        ({"name": "new", "pool": "big", "url": "http://127.0.0.1:9/other"}, (422, "invalid_url"), "under /v1"),
        ({"name": "new", "pool": "big", "url": "http://127.0.0.1:99999/"}, (422, "invalid_url"), "it is not a URL"),
        ({"name": "new", "pool": "big"}, (422, "invalid_request"), "got none"),
    ],
    ids=lambda value: str(value)[:60] if isinstance(value, str) else "",
)  # fmt: skip
def test_a_registration_that_cannot_be_is_refused_with_a_sentence(
    cluster: LocalCluster, body: dict[str, Any], expected: tuple[int, str], words: str
) -> None:
    before = registered_engines(cluster)
    reply = call(cluster, "POST", "/engines", json=body)
    assert refusal(reply) == expected, reply.text[:300]
    assert words in reply.json()["error"]["message"]
    assert len(reply.text) < 1000
    assert set(registered_engines(cluster)) == set(before)


def test_secret_files_of_a_remote_pool_must_be_there_and_be_what_they_are_named_for(cluster: LocalCluster) -> None:
    def remote(**files: str) -> tuple[int, str]:
        body = {"name": "cloud", "model": "m", "remote": {"url": "https://127.0.0.1:9/v1", **files}}
        return refusal(call(cluster, "POST", "/pools", json=body))

    (cluster.folder / "secrets/not-pem.crt").write_text("hello")
    (cluster.folder / "secrets/two-lines.key").write_text("a\nb\n")
    assert remote(key_file="missing.key") == (422, "secret_file_unusable")
    assert remote(key_file="two-lines.key") == (422, "secret_file_unusable")
    assert remote(ca_file="not-pem.crt") == (422, "secret_file_unusable")
    # The admin key must not be sent to an address that somebody registers.
    assert remote(key_file="admin.key") == (403, "secret_not_allowed")
    assert remote(key_file="../admin.key") == (422, "invalid_request")
    body = {"name": "cloud", "model": "m", "remote": {"url": "https://169.254.169.254/v1"}}
    assert refusal(call(cluster, "POST", "/pools", json=body)) == (403, "address_not_allowed")


def test_a_registered_remote_pool_is_told_without_its_key(cluster: LocalCluster) -> None:
    (cluster.folder / "secrets/cloud.key").write_text("sk-of-the-cloud\n")
    remote = {"url": "https://127.0.0.1:9/v1", "key_file": "cloud.key"}
    reply = call(cluster, "POST", "/pools", json={"name": "cloud", "model": "vendor-vl", "remote": remote})
    assert reply.status_code == 201, reply.text
    assert reply.json()["remote"] == remote | {"ca_file": None}
    assert "sk-of-the-cloud" not in reply.text + call(cluster, "GET", "/pools", {}).text
    status = cluster.client.get(f"http://127.0.0.1:{cluster.ports['controller']}/status").json()
    assert [pool["flavour"] for pool in status["pools"] if pool["name"] == "cloud"] == ["remote"]
    assert refusal(call(cluster, "POST", "/engines", json=GOOD | {"pool": "cloud"})) == (409, "pool_is_remote")
    assert call(cluster, "DELETE", "/pools/cloud").status_code == 200


def test_a_disk_that_takes_nothing_costs_the_call_and_changes_nothing(cluster: LocalCluster) -> None:
    folder = cluster.folder / "state/engines"
    folder.mkdir(parents=True, exist_ok=True)
    with full_disk(folder):
        reply = call(cluster, "POST", "/engines", json=GOOD | {"name": "unlucky"})
        assert refusal(reply) == (507, "not_persisted")
        assert "unlucky" not in registered_engines(cluster)
        assert [path.name for path in folder.iterdir()] == ["full"], "no half-written file is left behind"
    assert call(cluster, "POST", "/engines", json=GOOD | {"name": "unlucky"}).status_code == 201
    assert call(cluster, "DELETE", "/engines/unlucky").status_code == 200


def test_the_openapi_page_tells_every_call_with_examples(cluster: LocalCluster) -> None:
    told_of = call(cluster, "GET", "/openapi.json", {}).json()
    calls = {(path, method) for path, methods in told_of["paths"].items() for method in methods}
    assert {("/api/engines", "post"), ("/api/engines/{name}", "patch"), ("/api/engines/{name}/drain", "post")} <= calls
    assert {("/api/pools", "post"), ("/api/pools/{name}", "delete"), ("/api/models", "get")} <= calls
    for form in ("NewEngine", "NewPool", "WeightChange"):
        assert told_of["components"]["schemas"][form]["examples"]
    assert call(cluster, "GET", "/docs", {}).status_code == 200


def test_a_mark_is_a_series_while_it_lasts_and_two_events(cluster: LocalCluster) -> None:
    def series() -> str:
        text = cluster.client.get(f"http://127.0.0.1:{cluster.ports['controller']}/metrics").text
        return "".join(line for line in text.splitlines() if line.startswith("manyeyes_annotation"))

    def sentences() -> list[str]:
        return [event["sentence"] for event in call(cluster, "GET", "/events").json()]

    new = {"text": "another driver", "seconds": 600}
    assert refusal(call(cluster, "POST", "/annotations", headers={}, json=new)) == (401, "missing_admin_key")
    assert call(cluster, "POST", "/annotations", json=new).status_code == 201
    assert call(cluster, "POST", "/annotations", json=new).status_code == 201, "twice is as good as once"
    assert series() == 'manyeyes_annotation{text="another driver"} 1.0'
    assert [mark["text"] for mark in call(cluster, "GET", "/annotations").json()] == ["another driver"]
    assert call(cluster, "DELETE", "/annotations/another%20driver").status_code == 200
    assert series() == ""
    assert refusal(call(cluster, "DELETE", "/annotations/another%20driver")) == (404, "annotation_not_found")
    assert sentences()[:2] == ["annotation ended: another driver", "annotation started: another driver"]
    assert call(cluster, "POST", "/annotations", json={"text": "short", "seconds": 0.2}).status_code == 201
    eventually(lambda: series() == "", 10, 0.1, "a mark ends by itself")


def test_marks_are_limited_in_number_and_in_what_they_say(cluster: LocalCluster) -> None:
    for number in range(20):
        assert call(cluster, "POST", "/annotations", json={"text": f"mark {number}"}).status_code == 201
    assert refusal(call(cluster, "POST", "/annotations", json={"text": "one more"})) == (409, "too_many_annotations")
    for number in range(20):
        assert call(cluster, "DELETE", f"/annotations/mark%20{number}").status_code == 200
    for wrong in ({"text": ""}, {"text": "a/b"}, {"text": "x" * 121}, {"text": "x", "seconds": 0}):
        assert refusal(call(cluster, "POST", "/annotations", json=wrong)) == (422, "invalid_request")
