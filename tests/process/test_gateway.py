"""The gateway with real nginx: what it lets through, where it sends it, what it answers itself."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from tests.eventually import eventually
from tests.process.stand import Stand, stand


def two_pools() -> dict[str, Any]:
    return {
        "pools": [
            {"name": "big", "model": "org/Big-VL", "aliases": ["default"], "fallback": "small"},
            {"name": "small", "model": "org/Small-VL"},
        ],
        "engines": [
            {"name": "big-0", "pool": "big"},
            {"name": "big-1", "pool": "big"},
            {"name": "small-0", "pool": "small"},
        ],
        "gateway": {"max_body_mb": 8},
    }


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    with stand(tmp_path_factory.mktemp("stand"), two_pools()) as running:
        running.answers_from("big", {"big-0", "big-1"})
        running.answers_from("small", {"small-0"})
        yield running


@pytest.fixture
def client(cluster: Stand) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{cluster.url}/v1", api_key="any", max_retries=0) as made:
        yield made


def test_the_model_name_chooses_the_pool(cluster: Stand) -> None:
    for model, pool in (("big", "big"), ("default", "big"), ("small", "small")):
        reply = cluster.ask(model)
        assert (reply.status_code, reply.headers["X-ManyEyes-Pool"]) in ((200, pool), (404, pool)), reply.text
    assert cluster.ask("small").headers["X-ManyEyes-Engine"] == "small-0"


def test_equal_load_is_shared_evenly(cluster: Stand) -> None:
    seen = [cluster.ask("big").headers["X-ManyEyes-Engine"] for _ in range(20)]
    assert 6 <= seen.count("big-0") <= 14, seen


def test_an_unknown_model_is_404_and_names_the_models_there_are(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="gpt-9", messages=[{"role": "user", "content": "Hi"}])
    assert caught.value.code == "model_not_found"
    assert "There is no model 'gpt-9'. There are: big, small." in str(caught.value)


@pytest.mark.parametrize("body", [b"{not json", b"[]", b'"text"', b"null", b"{}", b'{"model": 5}', b""])
def test_a_body_without_a_model_is_400_in_openais_form_and_reaches_no_engine(cluster: Stand, body: bytes) -> None:
    reply = httpx.post(f"{cluster.url}/v1/chat/completions", content=body)
    assert reply.status_code == 400
    assert set(reply.json()["error"]) == {"message", "type", "param", "code"}
    assert "X-ManyEyes-Engine" not in reply.headers


def test_a_body_over_the_limit_is_413_and_says_the_limit(cluster: Stand) -> None:
    reply = httpx.post(f"{cluster.url}/v1/chat/completions", content=b"x" * (9 * 1024**2), timeout=30)
    assert reply.status_code == 413
    assert "larger than 8 MB" in reply.json()["error"]["message"]


def test_a_body_of_several_megabytes_passes(cluster: Stand) -> None:
    reply = cluster.ask("big", user="x" * (5 * 1024**2))
    assert reply.status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/metrics",
        "/health",
        "/invocations",
        "/tokenize",
        "/v1/embeddings",
        "/v1/chat/completions/../../metrics",
        "/v1/",
    ],
)
def test_no_other_path_of_an_engine_is_reachable(cluster: Stand, path: str) -> None:
    reply = httpx.post(f"{cluster.url}{path}", json={"model": "big"})
    assert reply.status_code in (404, 503)  # what is not under /v1/ belongs to the page, which does not run here
    assert "vllm" not in reply.text


def test_get_on_chat_is_405(cluster: Stand) -> None:
    reply = httpx.get(f"{cluster.url}/v1/chat/completions")
    assert (reply.status_code, reply.json()["error"]["code"]) == (405, "method_not_allowed")


def test_models_are_listed_as_openai_does(client: openai.OpenAI) -> None:
    listed = [model.id for model in client.models.list()]
    assert listed == ["big", "org/Big-VL", "default", "small", "org/Small-VL", "auto"]


def test_a_bad_request_that_an_engine_refuses_comes_through_unchanged(cluster: Stand) -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGVsbG8="}}
    reply = cluster.ask("big", messages=[{"role": "user", "content": [picture]}])
    assert reply.status_code == 400
    assert reply.json()["error"]["type"] == "BadRequestError"


def test_a_clients_request_id_is_kept_and_a_wrong_one_replaced(cluster: Stand) -> None:
    body = {"model": "big", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
    url = f"{cluster.url}/v1/chat/completions"
    assert httpx.post(url, json=body, headers={"X-Request-Id": "abc-1"}).headers.get_list("X-Request-Id") == ["abc-1"]
    replaced = httpx.post(url, json=body, headers={"X-Request-Id": "a b"}).headers.get_list("X-Request-Id")
    assert len(replaced) == 1
    assert len(replaced[0]) == 32


def test_the_log_has_one_line_per_request_and_no_prompt(cluster: Stand) -> None:
    body = {"model": "small", "messages": [{"role": "user", "content": "secret words"}], "max_tokens": 1}
    headers = {"X-Request-Id": "log-1", "Authorization": "Bearer key-1"}
    httpx.post(f"{cluster.url}/v1/chat/completions", json=body, headers=headers)

    def line() -> dict[str, Any]:
        found = [json.loads(one) for one in cluster.log("access").splitlines() if '"log-1"' in one]
        assert len(found) == 1
        return dict(found[0])

    said = eventually(line, 5)
    assert (said["pool"], said["engine"], said["status"]) == ("small", "small-0", 200)
    assert "secret words" not in cluster.log("access")
    assert "key-1" not in cluster.log("access")


def test_healthz_tells_pools_and_engines(cluster: Stand) -> None:
    said = eventually(lambda: (told := cluster.healthz())["controller"] == "ok" and told, 5)
    assert said["status"] == "ok"
    assert {pool["name"]: (pool["up"], pool["total"]) for pool in said["pools"]} == {"big": (2, 2), "small": (1, 1)}
    assert [engine["state"] for engine in said["pools"][0]["engines"]] == ["up", "up"]
