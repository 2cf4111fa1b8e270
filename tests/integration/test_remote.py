"""Pools served elsewhere: over TLS that is checked, with a key and a model name of their own."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from manyeyes.devcluster.cluster import LocalCluster, local_cluster
from manyeyes.devcluster.eventually import eventually
from manyeyes.devcluster.ports import free_port
from tests.integration.certificate import certificate
from tests.integration.scan.images import data_url, png
from tests.integration.scripted_engine import Endpoint, answers, endpoint

KEY = "sk-of-the-endpoint"


def pools(tls_port: int, plain_port: int) -> dict[str, Any]:
    def remote(port: int, scheme: str, **more: str) -> dict[str, Any]:
        return {"url": f"{scheme}://127.0.0.1:{port}/compatible-mode/v1", **more}

    trusted = remote(tls_port, "https", key_file="endpoint.key", ca_file="endpoint-ca.crt")
    return {
        "pools": [
            {"name": "local", "model": "org/Local", "fallback": "cloud", "aliases": ["front"]},
            {"name": "cloud", "model": "vendor/big-vl", "remote": trusted},
            {"name": "stranger", "model": "x", "remote": remote(tls_port, "https", key_file="endpoint.key")},
            {"name": "open", "model": "y", "remote": remote(plain_port, "http")},
        ],
        "engines": [{"name": "late-0", "pool": "local"}],
    }


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LocalCluster, Endpoint, Endpoint]]:
    folder = tmp_path_factory.mktemp("local_cluster")
    tls_port, plain_port = free_port(), free_port()
    crt, key = certificate(folder)
    (folder / "secrets").mkdir()
    shutil.copy(crt, folder / "secrets/endpoint-ca.crt")
    (folder / "secrets/endpoint.key").write_text(f"{KEY}\n")
    with (
        endpoint(tls_port, answers(), (crt, key)) as secure,
        endpoint(plain_port, answers()) as plain,
        local_cluster(folder, pools(tls_port, plain_port)) as running,
    ):
        yield running, secure, plain


def test_the_endpoint_is_asked_under_its_path_with_its_key_and_its_name_of_the_model(elsewhere: Any) -> None:
    cluster, secure, _ = elsewhere
    picture = {"type": "image_url", "image_url": {"url": data_url(png(8, 6, b"x" * 2_000_000))}}
    headers = {"Authorization": "Bearer the-clients-own", "Cookie": "a=b", "X-Secret": "s"}
    body = {"messages": [{"role": "user", "content": [picture]}], "model": "cloud", "metadata": {"model": "cloud"}}
    reply = cluster.client.post(f"{cluster.url}/v1/chat/completions", json=body, headers=headers)
    assert reply.status_code == 200, reply.text
    asked = secure.asked[-1]
    assert asked.path == "/compatible-mode/v1/chat/completions"
    assert asked.json == body | {"model": "vendor/big-vl"}
    assert asked.headers["Authorization"] == f"Bearer {KEY}"
    assert asked.headers["Host"].startswith("127.0.0.1:")
    assert not {"Cookie", "X-Secret", "X-Conversation-Id"} & set(asked.headers)
    assert (reply.headers["X-ManyEyes-Pool"], reply.headers["X-ManyEyes-Engine"]) == ("cloud", "127.0.0.1")


def test_a_request_counts_the_gateways_it_passed_and_the_third_is_the_last(elsewhere: Any) -> None:
    cluster, secure, _ = elsewhere

    def ask(hops: dict[str, str]) -> Any:
        body = {"model": "cloud", "messages": [{"role": "user", "content": "Hello"}]}
        return cluster.client.post(f"{cluster.url}/v1/chat/completions", json=body, headers=hops)

    for came, goes in (({}, "1"), ({"X-ManyEyes-Hops": "1"}, "2"), ({"X-ManyEyes-Hops": "2"}, "3")):
        assert ask(came).status_code == 200
        assert secure.asked[-1].headers["X-ManyEyes-Hops"] == goes
    asked = len(secure.asked)
    for refused in ("3", "99", "-1", "x"):
        reply = ask({"X-ManyEyes-Hops": refused})
        assert (reply.status_code, reply.json()["error"]["code"]) == (508, "request_loop")
    assert len(secure.asked) == asked


def test_a_pool_that_leads_back_to_its_own_gateway_ends_with_an_error_instead_of_a_loop(tmp_path: Path) -> None:
    document = {"pools": [{"name": "a", "model": "org/A"}], "engines": [{"name": "late-0", "pool": "a"}]}
    with local_cluster(tmp_path, document) as running:
        loop = {"name": "loop", "model": "loop", "remote": {"url": f"{running.url}/v1"}}
        changed = {**document, "pools": [*document["pools"], loop]}
        (tmp_path / "cluster.yaml").write_text(yaml.safe_dump(changed))
        eventually(lambda: running.ask("loop").status_code != 404, 60)
        reply = running.ask("loop")
        assert (reply.status_code, reply.json()["error"]["code"]) == (508, "request_loop")


def test_an_empty_pool_falls_back_to_the_endpoint_under_any_of_its_names(elsewhere: Any) -> None:
    cluster, secure, _ = elsewhere
    for name in ("local", "front", "org/Local"):
        reply = cluster.ask(name)
        assert (reply.status_code, reply.headers["X-ManyEyes-Fallback"]) == (200, "local"), reply.text
        assert secure.asked[-1].json["model"] == "vendor/big-vl"


def test_a_certificate_that_nobody_vouches_for_is_not_talked_to(elsewhere: Any) -> None:
    cluster, secure, _ = elsewhere
    before = len(secure.asked)
    reply = cluster.ask("stranger")
    assert (reply.status_code, reply.json()["error"]["type"]) == (503, "server_error")
    assert len(secure.asked) == before
    assert "certificate verify" in cluster.log("nginx") or "SSL certificate" in cluster.log("nginx")


def test_an_endpoint_without_a_key_gets_none(elsewhere: Any) -> None:
    cluster, _, plain = elsewhere
    reply = cluster.client.post(
        f"{cluster.url}/v1/completions", json={"model": "open", "prompt": "x"}, headers={"Authorization": "Bearer mine"}
    )
    assert reply.status_code == 200
    assert "Authorization" not in plain.asked[-1].headers
    assert plain.asked[-1].path == "/compatible-mode/v1/completions"


def test_a_key_that_the_endpoint_refuses_is_the_operators_to_mend(elsewhere: Any) -> None:
    cluster, secure, _ = elsewhere
    secure.does = answers(401)
    try:
        reply = cluster.ask("cloud")
    finally:
        secure.does = answers()
    assert (reply.status_code, reply.json()["error"]["code"]) == (502, "remote_key_refused")
    assert KEY not in reply.text


def test_a_key_that_changes_is_used_at_once(elsewhere: Any) -> None:
    cluster, secure, _ = elsewhere
    secret = Path(cluster.folder / "secrets/endpoint.key")
    secret.write_text("sk-new")
    cluster.ask("cloud")
    assert secure.asked[-1].headers["Authorization"] == "Bearer sk-new"
    secret.write_text(KEY)


def test_the_log_never_holds_the_key(elsewhere: Any) -> None:
    cluster, _, _ = elsewhere
    cluster.ask("cloud")
    assert KEY not in cluster.log("access") + cluster.log("nginx")
