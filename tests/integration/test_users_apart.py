"""Clients apart: salts of the engines' prompt cache, headers that only the page may send, the internal port."""

import contextlib
import json
from collections.abc import Iterator
from hashlib import sha256
from typing import Any

import httpx
import pytest

from manyeyes.config.credentials import ApiKey, ApiKeys
from manyeyes.devcluster.cluster import LocalCluster, local_cluster
from manyeyes.devcluster.eventually import eventually
from manyeyes.devcluster.ports import free_port
from manyeyes.render.nginx.files import cache_salt
from tests.integration.documents import document
from tests.integration.scan.server import Modules
from tests.integration.scripted_engine import Endpoint, answers, endpoint

ALICE, BOB = (ApiKey(name=name, sha256=sha256(f"secret-{name}".encode()).hexdigest()) for name in ("alice", "bob"))
KEYS = ApiKeys(keys=(ALICE, BOB))
Engines = tuple[LocalCluster, Endpoint, Endpoint]


@contextlib.contextmanager
def with_engines(folder: Any, keys: ApiKeys | None, **gateway: Any) -> Iterator[Engines]:
    """A cluster with an engine, and a remote pool that falls back to it."""
    elsewhere = free_port()
    pools = document({"big": ["late-0"]}, {"big": {"cache": {}}}, gateway=gateway)
    remote = {"url": f"http://127.0.0.1:{elsewhere}/v1"}
    pools["pools"].append({"name": "far", "model": "org/Far", "remote": remote, "fallback": "big"})
    with (
        local_cluster(folder, pools, keys=keys) as running,
        endpoint(running.ports["late-0"], answers()) as engine,
        endpoint(elsewhere, answers()) as far,
    ):
        running.all_up({"late-0"})
        yield running, engine, far


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engines]:
    with with_engines(tmp_path_factory.mktemp("local_cluster"), KEYS) as running:
        yield running


@pytest.fixture(scope="module")
def keyless(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engines]:
    with with_engines(tmp_path_factory.mktemp("local_cluster"), None) as running:
        yield running


CHAT: dict[str, Any] = {"model": "big", "messages": [{"role": "user", "content": "Hello"}]}
CALLS = {
    "/v1/chat/completions": CHAT,
    "/v1/completions": {"model": "big", "prompt": "Hello"},
    "/v1/responses": {"model": "big", "input": "Hello"},
}


def post(
    cluster: LocalCluster, body: Any, path: str = "/v1/chat/completions", port: str = "gateway", **headers: str
) -> httpx.Response:
    content = body if isinstance(body, str) else json.dumps(body)
    sent = {"Content-Type": "application/json"} | {name.replace("_", "-"): value for name, value in headers.items()}
    return cluster.client.post(f"http://127.0.0.1:{cluster.ports[port]}{path}", content=content, headers=sent)


def bearer(key: ApiKey) -> str:
    return f"Bearer secret-{key.name}"


def salt_at(engine: Endpoint, reply: httpx.Response) -> Any:
    """The salt that the engine got, which must be the same for a parser that uses the first of equal members."""
    assert reply.status_code == 200, reply.text
    pairs = json.loads(engine.asked[-1].body, object_pairs_hook=list)
    salts = [value for name, value in pairs if name == "cache_salt"]
    assert not salts or salts[0] == salts[-1]
    return salts[-1] if salts else None


# --- salts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", CALLS)
def test_every_call_of_a_key_has_its_salt(locked: Engines, path: str) -> None:
    cluster, engine, _ = locked
    salts = [
        salt_at(engine, post(cluster, CALLS[path], path, Authorization=bearer(key))) for key in (ALICE, BOB, ALICE)
    ]
    assert salts == [cache_salt(ALICE), cache_salt(BOB), cache_salt(ALICE)]
    assert all(set(salt) <= set("0123456789abcdef") for salt in salts)


@pytest.mark.parametrize("length", [10, 5_000, 100_000, 3_000_000, 6_000_000])
def test_a_body_of_any_size_gets_the_salt_and_changes_nowhere_else(locked: Engines, length: int) -> None:
    cluster, engine, _ = locked
    text = json.dumps({**CHAT, "user": "é" * length}, ensure_ascii=False)
    assert salt_at(engine, post(cluster, f" \n{text}\n", Authorization=bearer(ALICE))) == cache_salt(ALICE)
    assert {**engine.asked[-1].json, "cache_salt": 0} == {**json.loads(text), "cache_salt": 0}


OWN_SALTS = [
    '"cache_salt":"mine"',
    '"cache_salt":null',
    '"cache_salt":""',
    '"cache_salt":5',
    '"c\\u0061che_salt":"mine"',
    f'"cache_salt":"{cache_salt(BOB)}"',
    '"cache_salt":"mine","cache_salt":null',
    f'"cache_salt":null,"cache_salt":"{"x" * 5000}"',
]


@pytest.mark.parametrize("own", OWN_SALTS)
@pytest.mark.parametrize("place", ['{"model":"big",OWN,"prompt":"x"}', '{OWN,"model":"big","prompt":"x"}', '{"model":"big","prompt":"x",OWN}'])  # fmt: skip
def test_a_clients_salt_divides_its_own_space_only(locked: Engines, own: str, place: str) -> None:
    cluster, engine, _ = locked
    alice, bob = (
        salt_at(engine, post(cluster, place.replace("OWN", own), "/v1/completions", Authorization=bearer(key)))
        for key in (ALICE, BOB)
    )
    assert alice != bob
    assert alice != cache_salt(BOB)
    assert bob != cache_salt(ALICE)
    has_own = '"mine"}' in "{" + own + "}" or "xxx" in own or cache_salt(BOB) in own
    assert (alice == cache_salt(ALICE)) is not has_own


def test_a_request_with_a_uuid_has_the_salt_too(locked: Engines) -> None:
    cluster, engine, _ = locked
    part = {"type": "text", "text": "a", "uuid": "x"}
    reply = post(cluster, {**CHAT, "messages": [{"role": "user", "content": [part]}]}, Authorization=bearer(ALICE))
    assert salt_at(engine, reply) == cache_salt(ALICE)
    assert b"uuid" not in engine.asked[-1].body


def test_a_request_of_the_page_has_the_salt_of_its_users_key(locked: Engines) -> None:
    cluster, engine, _ = locked
    reply = post(cluster, CHAT, port="page", **cluster.page_headers, X_ManyEyes_Key="bob")
    assert salt_at(engine, reply) == cache_salt(BOB)


def test_a_remote_endpoint_gets_no_salt_and_the_engine_after_it_does(locked: Engines) -> None:
    cluster, engine, far = locked
    reply = post(cluster, {**CHAT, "model": "far"}, Authorization=bearer(ALICE))
    assert reply.status_code == 200
    assert b"cache_salt" not in far.asked[-1].body
    far.does = answers(503)
    try:
        reply = post(cluster, {**CHAT, "model": "far"}, Authorization=bearer(ALICE))
    finally:
        far.does = answers()
    assert salt_at(engine, reply) == cache_salt(ALICE)


def test_without_keys_only_calls_that_report_cached_tokens_have_a_salt(keyless: Engines) -> None:
    cluster, engine, _ = keyless
    salts = {path: salt_at(engine, post(cluster, body, path)) for path, body in CALLS.items()}
    assert salts["/v1/chat/completions"] is None
    assert salts["/v1/completions"] is None
    assert salts["/v1/responses"]


def test_without_keys_each_visit_of_the_page_has_a_salt_of_its_own(keyless: Engines) -> None:
    cluster, engine, _ = keyless
    ask = CALLS["/v1/responses"]
    visits = [
        salt_at(engine, post(cluster, ask, "/v1/responses", "page", **cluster.page_headers, X_ManyEyes_Page=visit))
        for visit in ("one", "two", "one")
    ]
    assert visits[0] == visits[2] != visits[1]


def test_reported_tokens_salt_every_request_without_a_key(tmp_path: Any) -> None:
    with with_engines(tmp_path, KEYS, anonymous=True, report_cached_tokens=True) as (cluster, engine, _):
        assert salt_at(engine, post(cluster, CHAT, Authorization=bearer(ALICE))) == cache_salt(ALICE)
        assert salt_at(engine, post(cluster, CHAT)) not in (None, cache_salt(ALICE), cache_salt(BOB))


# --- the model ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "members",
    [
        '"model":"big","model":"big"',
        '"model":"far","a":1,"model":"big"',
        '"model":"big","Model":"far"',
        '"MODEL":["far"],"model":"big"',
        '"model":"big","mo\\u0064el":"big"',
        '"\\u006dodel":"big","mo\\u0064el":"big"',
        '"model":"big","\\u004dodel":"big"',
        f'"model":"big","a":"{"x" * 5000}","model":"far"',
    ],
)
def test_a_model_that_is_named_twice_or_in_another_case_is_refused(njs: Modules, members: str) -> None:
    found = njs.read([f"{{{members}}}".encode()])[0]
    assert "names its model more than once" in found.get("refused", ""), found


@pytest.mark.parametrize(
    "members",
    [
        '"model":"m"',
        '"mo\\u0064el":"m"',
        '"model":"m","tools":[{"model":"x","Model":"y"}],"a":"model"',
        '"model":"m","messages":[{"role":"user","content":"\\"model\\":1,\\"model\\":2"}]',
        '"model":"m","messages":[{"role":"user","content":"\\\\u006d \\u006d \\"model\\""}]',
        '"model":"m","model_name":"x","remodel":1,"\\"model":2',
    ],
)
def test_a_model_that_is_named_once_is_read(njs: Modules, members: str) -> None:
    assert njs.read([f"{{{members}}}".encode()])[0].get("model") == "m"


# --- headers from outside -------------------------------------------------------------------------------------------

HEADERS = {
    "X-ManyEyes-Key": "bob",
    "X-ManyEyes-Page": "another-visit",
    "X-ManyEyes-Page-Key": "the-page-key-of-this-cluster",
    "X-ManyEyes-Outside": "",
    "X-ManyEyes-Engine": "forged",
    "X-ManyEyes-Pool": "forged",
    "X-ManyEyes-Route": "forged",
    "X-ManyEyes-Fallback": "forged",
    "X-ManyEyes-Cache": "forged",
}


@pytest.mark.parametrize("header", HEADERS)
def test_a_header_from_outside_changes_nothing(locked: Engines, header: str) -> None:
    cluster, engine, _ = locked
    sent = {header: HEADERS[header]}
    assert post(cluster, CHAT, **sent).status_code == 401, "it opens nothing"
    reply = post(cluster, CHAT, Authorization=bearer(ALICE), **sent)
    assert salt_at(engine, reply) == cache_salt(ALICE)
    names = {name.lower() for name in engine.asked[-1].headers}
    assert not [name for name in names if name.startswith("x-manyeyes")], "engines see none"
    assert "forged" not in reply.headers.get(header, "")
    cold = {**CHAT, "temperature": 0, "messages": [{"role": "user", "content": header}]}
    caches = [
        post(cluster, cold, Authorization=bearer(ALICE), **more).headers["X-ManyEyes-Cache"] for more in ({}, sent)
    ]
    assert caches == ["MISS", "HIT"], "it makes no other client"
    api = cluster.client.get(f"{cluster.url}/api/engines", headers=sent)
    assert api.status_code in (401, 403), "the operators' API stays closed"
    line = eventually(
        lambda: [line for line in cluster.log("access").splitlines() if reply.headers["X-Request-Id"] in line], 10
    )[0]
    assert json.loads(line)["key"] == "alice"


@pytest.mark.parametrize("header", ["X-ManyEyes-Engine", "X-ManyEyes-Pool", "X-ManyEyes-Cache", "X-Accel-Redirect"])
def test_an_engine_cannot_set_the_gateways_headers(locked: Engines, header: str) -> None:
    cluster, engine, _ = locked
    engine.does = lambda handler, asked: handler.answer(200, b"{}", **{header: "/forged"})
    try:
        reply = post(cluster, CHAT, Authorization=bearer(ALICE))
    finally:
        engine.does = answers()
    assert (reply.status_code, reply.headers.get_list(header).count("/forged")) == (200, 0)


# --- the internal port ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sent", [{}, {"X-ManyEyes-Page-Key": "wrong"}, {"X-ManyEyes-Page-Key": ""}])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/models", "/healthz"])
def test_the_internal_port_is_closed_without_the_pages_key(
    locked: Engines, keyless: Engines, path: str, sent: dict[str, str]
) -> None:
    for cluster, _, _ in (locked, keyless):
        url = f"http://127.0.0.1:{cluster.ports['page']}{path}"
        method, body = ("POST", json.dumps(CHAT)) if "chat" in path else ("GET", None)
        for more in ({}, {"X-ManyEyes-Key": "alice"}, {"X-ManyEyes-Key": "-"}, {"Authorization": bearer(ALICE)}):
            reply = cluster.client.request(method, url, content=body, headers=sent | more)
            assert (reply.status_code, reply.json()["error"]["code"]) == (401, "page_key_required")


def test_the_internal_port_requires_a_users_key_or_the_operator(locked: Engines) -> None:
    cluster, engine, _ = locked
    own = cluster.page_headers
    for name in ("", "mallory", "ALICE-"):
        assert post(cluster, CHAT, port="page", **own, X_ManyEyes_Key=name).status_code == 401
    assert post(cluster, CHAT, port="page", **own).status_code == 401
    assert salt_at(engine, post(cluster, CHAT, port="page", **own, X_ManyEyes_Key="-")) is None
    assert post(cluster, CHAT, port="page", **own, Authorization=bearer(BOB)).status_code == 200


def test_without_a_page_key_the_page_works_where_no_key_is_required(tmp_path: Any) -> None:
    with with_engines(tmp_path, None) as (cluster, _, _):
        (tmp_path / "secrets/page.key").unlink()
        assert post(cluster, CHAT, port="page", X_ManyEyes_Page="a").status_code == 200


def test_without_a_page_key_no_key_can_be_named(tmp_path: Any) -> None:
    with with_engines(tmp_path, KEYS) as (cluster, _, _):
        (tmp_path / "secrets/page.key").unlink()
        for name in ("alice", "-", ""):
            assert post(cluster, CHAT, port="page", X_ManyEyes_Key=name).status_code == 401
