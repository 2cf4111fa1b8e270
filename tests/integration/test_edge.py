"""What the gateway lets through, where it sends it, what it answers itself: models, keys, limits, TLS, links, broken requests."""

import asyncio
import base64
import hashlib
import json
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from manyeyes.config.credentials import ApiKey, ApiKeys
from manyeyes.devcluster.cluster import LocalCluster, local_cluster
from manyeyes.devcluster.eventually import eventually
from tests.integration.certificate import certificate
from tests.integration.documents import document
from tests.integration.scan.images import data_url, png


def key(name: str, **limits: int) -> ApiKey:
    return ApiKey(name=name, sha256=hashlib.sha256(f"secret-{name}".encode()).hexdigest(), **limits)


def pools(**gateway: Any) -> dict[str, Any]:
    return document(
        {"big": ["big-0"], "linked": ["linked-0"]},
        {"big": {"aliases": ["default"]}, "linked": {"media": {"allowed_domains": ["pictures.example.com"]}}},
        gateway={"max_body_mb": 8, **gateway},
    )


@pytest.fixture(scope="module")
def open_to_all(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    with local_cluster(tmp_path_factory.mktemp("local_cluster"), pools()) as running:
        running.answers_from("big", {"big-0"})
        running.answers_from("linked", {"linked-0"})
        yield running


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    keys = ApiKeys(keys=(key("alice"), key("bob", requests_per_minute=6), key("carol", in_flight=2)))
    with local_cluster(tmp_path_factory.mktemp("local_cluster"), pools(), keys=keys) as running:
        running.all_up({"big-0", "linked-0"})
        eventually(lambda: ask(running, "alice").status_code == 200, 20, 0.2, "alice is answered")
        yield running


def ask(cluster: LocalCluster, name: str = "", scheme: str = "Bearer", **more: Any) -> httpx.Response:
    secret = f"secret-{name}"
    value = secret if scheme == "Bearer" else base64.b64encode(f"anyone:{secret}".encode()).decode()
    headers = {"Authorization": f"{scheme} {value}"} if name else {}
    body = {"model": "big", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2} | more
    return cluster.client.post(f"{cluster.url}/v1/chat/completions", json=body, headers=headers)


# --- models -----------------------------------------------------------------------------------------------------


def test_the_model_name_chooses_the_pool(open_to_all: LocalCluster) -> None:
    for model, pool in (("big", "big"), ("default", "big"), ("linked", "linked")):
        reply = open_to_all.ask(model)
        assert (reply.status_code, reply.headers["X-ManyEyes-Pool"]) == (200, pool), reply.text
        assert reply.headers["X-ManyEyes-Engine"] == f"{pool}-0"


def test_models_are_listed_as_openai_does_and_an_unknown_one_is_404_with_those_there_are(
    open_to_all: LocalCluster,
) -> None:
    with openai.OpenAI(base_url=f"{open_to_all.url}/v1", api_key="any", max_retries=0) as client:
        listed = [model.id for model in client.models.list()]
        assert listed == ["big", "org/Big-VL", "default", "linked", "org/Linked-VL", "auto"]
        with pytest.raises(openai.NotFoundError) as caught:
            client.chat.completions.create(model="gpt-9", messages=[{"role": "user", "content": "Hi"}])
    assert caught.value.code == "model_not_found"
    assert "The model 'gpt-9' does not exist. Available models: big, linked." in str(caught.value)


def test_a_bad_request_that_an_engine_refuses_comes_through_unchanged(open_to_all: LocalCluster) -> None:
    reply = ask_about(open_to_all, "big", data_url(png(1000, 1)))
    assert (reply.status_code, reply.json()["error"]["type"]) == (400, "BadRequestError")


def test_a_clients_request_id_is_kept_and_a_wrong_one_replaced(open_to_all: LocalCluster) -> None:
    def answered(request: str) -> list[str]:
        url, body = f"{open_to_all.url}/v1/chat/completions", {"model": "big", "messages": [], "max_tokens": 1}
        return httpx.post(url, json=body, headers={"X-Request-Id": request}).headers.get_list("X-Request-Id")

    assert answered("abc-1") == ["abc-1"]
    (replaced,) = answered("a b")
    assert len(replaced) == 32


def test_healthz_tells_pools_and_engines(open_to_all: LocalCluster) -> None:
    said = eventually(lambda: (found := open_to_all.healthz())["controller"] == "ok" and found, 5)
    assert said["status"] == "ok"
    assert {pool["name"]: (pool["up"], pool["total"]) for pool in said["pools"]} == {"big": (1, 1), "linked": (1, 1)}
    assert [engine["state"] for engine in said["pools"][0]["engines"]] == ["up"]


# --- keys -------------------------------------------------------------------------------------------------------


def test_where_there_are_keys_a_request_without_a_known_one_is_401_in_openais_form(locked: LocalCluster) -> None:
    for name in ("", "mallory"):
        reply = ask(locked, name)
        assert (reply.status_code, reply.json()["error"]["code"]) == (401, "invalid_api_key")
        assert reply.headers["WWW-Authenticate"] == "Bearer"
    assert locked.client.get(f"{locked.url}/v1/models").status_code == 401
    assert locked.client.get(f"{locked.url}/healthz").status_code == 200


def test_a_stranger_is_refused_before_the_body_is_read(locked: LocalCluster) -> None:
    with socket.create_connection(("127.0.0.1", locked.ports["gateway"]), timeout=5) as client:
        client.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 5000000\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 401")


def test_a_known_key_is_let_in_and_named_in_the_log_while_the_engine_never_sees_it(locked: LocalCluster) -> None:
    reply = ask(locked, "alice")
    assert reply.status_code == 200
    eventually(lambda: '"key":"alice"' in locked.log("access"), 5, 0.1, "the log names the key")
    assert "secret-alice" not in locked.log("access") + locked.log("big-0")


def test_requests_over_a_keys_rate_are_429_and_other_keys_go_on(locked: LocalCluster) -> None:
    seen = [ask(locked, "bob").status_code for _ in range(10)]
    assert seen[:6] == [200] * 6
    assert seen[-1] == 429
    reply = ask(locked, "bob")
    assert (reply.json()["error"]["code"], reply.headers["Retry-After"]) == ("rate_limit_exceeded", "5")
    assert "'bob'" in reply.json()["error"]["message"]
    assert ask(locked, "alice").status_code == 200


def test_requests_over_a_keys_number_at_once_are_429(locked: LocalCluster) -> None:
    async def at_once(name: str) -> list[int]:
        async with httpx.AsyncClient(timeout=30) as client:
            body = {
                "model": "big",
                "messages": [{"role": "user", "content": "x"}],
                "max_tokens": 200,
                "min_tokens": 200,
            }
            headers = {"Authorization": f"Bearer secret-{name}"}
            url = f"{locked.url}/v1/chat/completions"
            replies = await asyncio.gather(*(client.post(url, json=body, headers=headers) for _ in range(6)))
        return sorted(reply.status_code for reply in replies)

    assert asyncio.run(at_once("carol")) == [200, 200, 429, 429, 429, 429]
    assert asyncio.run(at_once("alice")) == [200] * 6
    assert ask(locked, "carol").status_code == 200


def test_the_page_asks_for_a_key_as_browsers_do(locked: LocalCluster) -> None:
    reply = locked.client.get(f"{locked.url}/")
    assert reply.status_code == 401
    assert reply.headers["WWW-Authenticate"].startswith("Basic realm=")
    known = locked.client.get(f"{locked.url}/", auth=("anyone", "secret-alice"))
    assert known.status_code in (502, 503), "the page itself does not run here"


def test_the_page_asks_for_its_visitor_by_the_name_of_the_key(locked: LocalCluster) -> None:
    url = f"http://127.0.0.1:{locked.ports['page']}/v1/chat/completions"
    body = {"model": "big", "messages": [{"role": "user", "content": "x"}], "max_tokens": 2}
    own = locked.page_headers
    assert locked.client.post(url, json=body, headers=own | {"X-ManyEyes-Key": "alice"}).status_code == 200
    # From outside the header says nothing.
    for headers in ({"X-ManyEyes-Key": "alice"}, {"Authorization": "Bearer name:alice"}):
        assert httpx.post(f"{locked.url}/v1/chat/completions", json=body, headers=headers).status_code == 401


def test_keys_are_let_in_beside_everybody_where_the_operator_says_so(tmp_path: Path) -> None:
    with local_cluster(tmp_path, pools(anonymous=True), keys=ApiKeys(keys=(key("alice"),))) as running:
        running.answers_from("big", {"big-0"})
        assert ask(running, "alice").status_code == 200


def test_a_web_site_under_a_strange_name_of_this_address_needs_a_key(tmp_path: Path) -> None:
    open_pools = pools(anonymous=True) | {"webui": {"host_names": ["eyes.example.com"]}}
    with local_cluster(tmp_path, open_pools, keys=ApiKeys(keys=(key("alice"),))) as running:
        running.answers_from("big", {"big-0"})
        body = {"model": "big", "messages": [{"role": "user", "content": "x"}], "max_tokens": 2}

        def status(host: str, **headers: str) -> int:
            url = f"{running.url}/v1/chat/completions"
            return running.client.post(url, json=body, headers={"Host": host} | headers).status_code

        site = {"Origin": "http://evil.example"}
        own = ("localhost:8080", "127.0.0.1", "[::1]:8080", "gpu", "gpu.lan", "box.home.arpa", "Eyes.Example.com:8080")
        assert {status(host, **site) for host in own} == {200}
        strange = ("evil.example", "127.0.0.1.evil.example", "eyes.example.com.evil.example", "gpu.lan.evil.example:80")
        assert {status(host, **site) for host in strange} == {403}
        # With a key, or not from a browser.
        assert status("evil.example", **site, Authorization="Bearer secret-alice") == 200
        assert status("evil.example") == 200


# --- TLS --------------------------------------------------------------------------------------------------------


def test_https_and_http_2_with_the_operators_certificate(tmp_path: Path) -> None:
    (tmp_path / "secrets").mkdir()
    crt, _ = certificate(tmp_path / "secrets")
    with local_cluster(tmp_path, pools(tls={})) as running:
        url = running.url.replace("http://", "https://")

        def curl(*arguments: str | Path) -> str:
            told = subprocess.run(["curl", "-sS", "--max-time", "10", *arguments], capture_output=True, text=True)
            return told.stdout + told.stderr

        eventually(lambda: '"status":"ok"' in curl("--cacert", crt, f"{url}/healthz"), 20, 0.2, "healthz over TLS")
        body = '{"model":"big","messages":[{"role":"user","content":"x"}],"max_tokens":3,"stream":true}'
        ask = ("-H", "Content-Type: application/json", "-d", body, f"{url}/v1/chat/completions")
        eventually(lambda: "[DONE]" in curl("--cacert", crt, *ask), 20, 0.2, "an answer over TLS")
        said = curl("--cacert", crt, "--http2", "-i", *ask)
        assert said.startswith("HTTP/2 200")
        assert said.endswith("data: [DONE]\n\n")
        assert "certificate" in curl(f"{url}/healthz"), "nobody vouches for it"
        plain = httpx.get(f"{running.url}/healthz")
        assert (plain.status_code, plain.json()["error"]["code"]) == (400, "https_expected")


# --- links ------------------------------------------------------------------------------------------------------


def ask_about(cluster: LocalCluster, model: str, url: str) -> httpx.Response:
    picture = {"type": "image_url", "image_url": {"url": url}}
    return ask(cluster, model=model, messages=[{"role": "user", "content": [picture]}])


METADATA = "http://169.254.169.254/latest/meta-data/"


@pytest.mark.parametrize("model", ["big", "linked"])
@pytest.mark.parametrize(
    "url",
    [
        METADATA,
        "http://127.0.0.1:8081/status",
        "file:///etc/passwd",
        "http://pictures.example.com@169.254.169.254/",
        "http://pictures.example.com\\@169.254.169.254/",
        "http://169.254.169.254\\@pictures.example.com/",
        "http://pictures.example.com.evil.test/",
        "https://pictures.example.com:443@evil.test/",
        "//pictures.example.com/",
        "http:/pictures.example.com/",
        "http://PICTURES.example.com%2eevil.test/",
        "http://pictures.example.com/\t",
        "gopher://pictures.example.com/",
        " http://169.254.169.254/",
        "",
    ],
)
def test_a_link_to_anywhere_else_is_400_and_reaches_no_engine(open_to_all: LocalCluster, model: str, url: str) -> None:
    reply = ask_about(open_to_all, model, url)
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, "media_url_not_allowed"), reply.text
    assert "X-ManyEyes-Engine" not in reply.headers


def test_a_link_to_an_allowed_host_goes_to_an_engine_of_that_pool_only(open_to_all: LocalCluster) -> None:
    for url in ("https://pictures.example.com/a.png", "http://pictures.example.com:8000/a?b=c#d"):
        assert ask_about(open_to_all, "linked", url).headers["X-ManyEyes-Engine"] == "linked-0"
        assert ask_about(open_to_all, "big", url).json()["error"]["code"] == "media_url_not_allowed"


# --- broken and hostile requests -----------------------------------------------------------------------------------


def raw(cluster: LocalCluster, request: bytes, within_s: float = 20) -> bytes:
    """The reply's bytes to bytes written as they are."""
    with socket.create_connection(("127.0.0.1", cluster.ports["gateway"]), timeout=within_s) as client:
        client.sendall(request)
        reply = b""
        while chunk := client.recv(65_536):
            reply += chunk
    return reply


def posted(body: bytes, *headers: str) -> bytes:
    lines = [
        "POST /v1/chat/completions HTTP/1.1",
        "Host: x",
        "Connection: close",
        f"Content-Length: {len(body)}",
        *headers,
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


def assert_refused(reply: bytes, *statuses: int) -> None:
    head, _, body = reply.partition(b"\r\n\r\n")
    assert int(head.split()[1]) in statuses, reply[:300]
    assert set(json.loads(body)["error"]) == {"message", "type", "param", "code"}, reply[:300]


BROKEN = [
    b"",
    b"{not json",
    b"[]",
    b'"text"',
    b"null",
    b"{}",
    b'{"model": 5}',
    b'{"model":"big","messages":[',
    b'{"model":"big",' + b'"a":{' * 100_000,
    b'{"model":"big","messages":"text"}',
    b'{"model":"big","messages":{"role":"user"}}',
    b'{"model":"big","messages":[{"role":"user","content":"\xff\xfe\xfa"}]}',
    b'{"model":"' + b"m" * 7_000_000 + b'"}',
    b'{"model":"big","model":"none such","messages":[]}',
    b'{"model":"__proto__","messages":[]}',
    b'{"model":"constructor"}',
    b'{"model":"big\\u0000"}',
    b'{"model":["big"]}',
    b"\x1f\x8b\x08\x00\x00",
    b'{"a":"' + b"\\\\" * 3_900_000 + b'"}',
]


@pytest.mark.parametrize("body", BROKEN, ids=lambda body: f"{body[:24]!r} {len(body)}")
def test_a_broken_body_is_4xx_in_openais_form_and_others_are_served(open_to_all: LocalCluster, body: bytes) -> None:
    reply = raw(open_to_all, posted(body, "Content-Type: application/json"))
    assert_refused(reply, 400, 404)
    # One that names a model is the engine's to judge.
    assert b"X-ManyEyes-Engine" not in reply or body.startswith(b'{"model":"big","messages"')
    assert ask(open_to_all).status_code == 200


@pytest.mark.parametrize(
    "kind", ["text/plain", "multipart/form-data; boundary=x", "application/x-www-form-urlencoded", ""]
)
def test_a_wrong_content_type_is_4xx(open_to_all: LocalCluster, kind: str) -> None:
    body = b'{"model":"big","messages":[{"role":"user","content":"x"}]}'
    assert_refused(raw(open_to_all, posted(body, f"Content-Type: {kind}")), 400, 415)


@pytest.mark.parametrize(
    "target",
    [
        "GET /v1/../metrics",
        "GET /v1/%2e%2e/metrics",
        "GET /v1/models/../../sleep",
        "POST /metrics",
        "POST /health",
        "POST /invocations",
        "POST /tokenize",
        "POST /v1/embeddings",
        "POST /v1/",
        "POST //metrics",
        "POST /v1//load",
        "POST /v1/%2fmetrics",
        "POST //v1//../metrics",
        "POST /v1/chat/completions/render",
        "POST /v1/chat/completions/../../metrics",
        "POST /v1/chat/completions/..%2f..%2fmetrics",
        "POST /v1/chat%2fcompletions/x",
        "POST //v1//invocations",
        "POST /V1/chat/completions",
        "POST http://big-0:8000/metrics",
        "CONNECT big-0:8000",
    ],
)
def test_no_trick_with_paths_reaches_an_engine(open_to_all: LocalCluster, target: str) -> None:
    reply = raw(open_to_all, f"{target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".encode())
    assert int(reply.split()[1]) in (400, 404, 405, 502, 503), reply[:200]
    assert b"vllm" not in reply
    assert b"X-ManyEyes-Engine" not in reply


def test_ten_thousand_headers_are_refused(open_to_all: LocalCluster) -> None:
    reply = raw(open_to_all, posted(b"{}", *(f"X-H-{n}: {'v' * 20}" for n in range(10_000))))
    assert_refused(reply, 400)
    assert b"headers_too_large" in reply


def test_a_line_break_in_a_key_or_an_id_changes_no_header(open_to_all: LocalCluster) -> None:
    body = b'{"model":"big","prompt_cache_key":"a\\r\\nX-Evil: 1","messages":[{"role":"user","content":"x"}],"max_tokens":1}'
    headers = ("Content-Type: application/json", "X-Request-Id: a b\tc", "X-Conversation-Id: \x01\x02")
    reply = raw(open_to_all, posted(body, *headers))
    assert b"200 OK" in reply.split(b"\r\n")[0], reply[:300]
    assert b"evil" not in reply.lower()


def test_uploads_that_never_end_hold_up_nobody(open_to_all: LocalCluster) -> None:
    head = b'POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n10\r\n{"model":"big", '
    stuck = [socket.create_connection(("127.0.0.1", open_to_all.ports["gateway"])) for _ in range(300)]
    try:
        for client in stuck:
            client.sendall(head)
        assert all(ask(open_to_all).status_code == 200 for _ in range(5))
    finally:
        for client in stuck:
            client.close()


def test_a_chunked_upload_over_the_limit_is_413(open_to_all: LocalCluster) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(10):
            yield b"x" * 1024**2

    reply = httpx.post(f"{open_to_all.url}/v1/chat/completions", content=chunks(), timeout=30)
    assert (reply.status_code, reply.json()["error"]["code"]) == (413, "request_too_large")
    assert "larger than 8 MB" in reply.json()["error"]["message"]


def test_a_chunked_upload_is_read_like_any_other(open_to_all: LocalCluster) -> None:
    body = json.dumps(
        {"model": "big", "messages": [{"role": "user", "content": "y" * 3_000_000}], "max_tokens": 1}
    ).encode()

    def chunks() -> Iterator[bytes]:
        for at in range(0, len(body), 50_000):
            yield body[at : at + 50_000]

    headers = {"Content-Type": "application/json"}
    reply = httpx.post(f"{open_to_all.url}/v1/chat/completions", content=chunks(), headers=headers, timeout=30)
    assert reply.status_code in (200, 400), reply.text
    assert reply.headers["X-ManyEyes-Engine"] == "big-0"
