"""The gateway with real nginx: what it lets through, where it sends it, what it answers itself."""

from collections.abc import Iterator

import httpx
import openai
import pytest

from manyeyes.devcluster.cluster import LocalCluster, local_cluster
from manyeyes.devcluster.eventually import eventually
from tests.integration.documents import document

POOLS = document(
    {"big": ["big-0", "big-1"], "small": ["small-0"]},
    {"big": {"aliases": ["default"], "fallback": "small"}},
    gateway={"max_body_mb": 8},
)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    with local_cluster(tmp_path_factory.mktemp("local_cluster"), POOLS) as running:
        running.answers_from("big", {"big-0", "big-1"})
        running.answers_from("small", {"small-0"})
        yield running


@pytest.fixture
def client(cluster: LocalCluster) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{cluster.url}/v1", api_key="any", max_retries=0) as made:
        yield made


def test_the_model_name_chooses_the_pool(cluster: LocalCluster) -> None:
    for model, pool in (("big", "big"), ("default", "big"), ("small", "small")):
        reply = cluster.ask(model)
        assert (reply.status_code, reply.headers["X-ManyEyes-Pool"]) in ((200, pool), (404, pool)), reply.text
    assert cluster.ask("small").headers["X-ManyEyes-Engine"] == "small-0"


def test_equal_load_is_shared_evenly(cluster: LocalCluster) -> None:
    seen = [cluster.ask("big").headers["X-ManyEyes-Engine"] for _ in range(20)]
    assert 6 <= seen.count("big-0") <= 14, seen


def test_an_unknown_model_is_404_and_names_the_models_there_are(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="gpt-9", messages=[{"role": "user", "content": "Hi"}])
    assert caught.value.code == "model_not_found"
    assert "There is no model 'gpt-9'. There are: big, small." in str(caught.value)


def test_a_body_of_several_megabytes_passes(cluster: LocalCluster) -> None:
    reply = cluster.ask("big", user="x" * (5 * 1024**2))
    assert reply.status_code == 200


def test_models_are_listed_as_openai_does(client: openai.OpenAI) -> None:
    listed = [model.id for model in client.models.list()]
    assert listed == ["big", "org/Big-VL", "default", "small", "org/Small-VL", "auto"]


def test_a_bad_request_that_an_engine_refuses_comes_through_unchanged(cluster: LocalCluster) -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGVsbG8="}}
    reply = cluster.ask("big", messages=[{"role": "user", "content": [picture]}])
    assert reply.status_code == 400
    assert reply.json()["error"]["type"] == "BadRequestError"


def test_a_clients_request_id_is_kept_and_a_wrong_one_replaced(cluster: LocalCluster) -> None:
    body = {"model": "big", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
    url = f"{cluster.url}/v1/chat/completions"
    assert httpx.post(url, json=body, headers={"X-Request-Id": "abc-1"}).headers.get_list("X-Request-Id") == ["abc-1"]
    replaced = httpx.post(url, json=body, headers={"X-Request-Id": "a b"}).headers.get_list("X-Request-Id")
    assert len(replaced) == 1
    assert len(replaced[0]) == 32


def test_healthz_tells_pools_and_engines(cluster: LocalCluster) -> None:
    said = eventually(lambda: (told := cluster.healthz())["controller"] == "ok" and told, 5)
    assert said["status"] == "ok"
    assert {pool["name"]: (pool["up"], pool["total"]) for pool in said["pools"]} == {"big": (2, 2), "small": (1, 1)}
    assert [engine["state"] for engine in said["pools"][0]["engines"]] == ["up", "up"]
