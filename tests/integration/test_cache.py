"""Answers to exact repeats, where a pool keeps them."""

import concurrent.futures
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from manyeyes.devcluster.cluster import LocalCluster, local_cluster
from manyeyes.devcluster.eventually import eventually
from tests.integration.documents import document
from tests.integration.scripted_engine import Asked, Endpoint, Handler, answers, endpoint

POOLS = document(
    {pool: [f"late-{pool}"] for pool in ("own", "all", "none")},
    {"own": {"cache": {"ttl_s": 2}}, "all": {"cache": {"shared": True}}},
)


def slowly(handler: Handler, asked: Asked) -> None:
    time.sleep(0.4)
    answers()(handler, asked)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LocalCluster, dict[str, Endpoint]]]:
    with local_cluster(tmp_path_factory.mktemp("local_cluster"), POOLS) as running:
        ports = running.ports
        with (
            endpoint(ports["late-own"], answers()) as own,
            endpoint(ports["late-all"], answers()) as shared,
            endpoint(ports["late-none"], answers()) as none,
        ):
            for name in ("own", "all", "none"):
                running.answers_from(name, {f"late-{name}"})
            yield running, {"own": own, "all": shared, "none": none}


def ask(
    cluster: LocalCluster,
    model: str,
    text: str,
    headers: dict[str, str] | None = None,
    port: str = "gateway",
    **more: Any,
) -> httpx.Response:
    body = {"model": model, "messages": [{"role": "user", "content": text}], "temperature": 0} | more
    url = f"http://127.0.0.1:{cluster.ports[port]}/v1/chat/completions"
    return cluster.client.post(url, json=body, headers=headers)


def test_an_exact_repeat_is_answered_from_the_cache_and_reaches_no_engine(cluster: Any) -> None:
    running, engines = cluster
    first, second = ask(running, "all", "repeat"), ask(running, "all", "repeat")
    assert [reply.headers["X-ManyEyes-Cache"] for reply in (first, second)] == ["MISS", "HIT"]
    assert first.content == second.content
    assert sum(b"repeat" in asked.body for asked in engines["all"].asked) == 1


@pytest.mark.parametrize("more", [{"stream": True}, {"temperature": 0.5}, {"temperature": None}])
def test_what_may_differ_each_time_is_not_kept(cluster: Any, more: dict[str, Any]) -> None:
    running, _ = cluster
    for _ in range(2):
        assert ask(running, "all", "differs", **more).headers["X-ManyEyes-Cache"] == "BYPASS"


def test_a_client_may_ask_for_a_fresh_answer(cluster: Any) -> None:
    running, _ = cluster
    ask(running, "all", "fresh")
    assert ask(running, "all", "fresh", {"Cache-Control": "no-cache"}).headers["X-ManyEyes-Cache"] == "BYPASS"


def test_a_pool_without_a_cache_says_nothing_of_one(cluster: Any) -> None:
    running, engines = cluster
    assert all("X-ManyEyes-Cache" not in ask(running, "none", "twice").headers for _ in range(2))
    assert sum(b"twice" in asked.body for asked in engines["none"].asked) == 2


def test_one_byte_more_is_another_request(cluster: Any) -> None:
    running, _ = cluster
    assert ask(running, "all", "x" * 20_000).headers["X-ManyEyes-Cache"] == "MISS"
    assert ask(running, "all", "x" * 9_000 + "y" + "x" * 10_999).headers["X-ManyEyes-Cache"] == "MISS"
    assert ask(running, "all", "x" * 20_000, max_tokens=5).headers["X-ManyEyes-Cache"] == "MISS"


def test_each_asker_has_answers_of_its_own_unless_they_are_shared(cluster: Any) -> None:
    running, _ = cluster
    for model, expected in (("own", ["MISS", "MISS", "HIT"]), ("all", ["MISS", "HIT", "HIT"])):
        own = running.page_headers
        seen = [ask(running, model, "askers", own | {"X-ManyEyes-Page": page}, "page") for page in ("a", "b", "b")]
        assert [reply.headers["X-ManyEyes-Cache"] for reply in seen] == expected


def test_an_answer_is_forgotten_after_its_time(cluster: Any) -> None:
    running, _ = cluster
    assert [ask(running, "own", "old").headers["X-ManyEyes-Cache"] for _ in range(2)] == ["MISS", "HIT"]
    forgotten = ("EXPIRED", "MISS")
    eventually(lambda: ask(running, "own", "old").headers["X-ManyEyes-Cache"] in forgotten, 20, 0.5, "it is forgotten")


def test_equal_requests_at_once_reach_an_engine_once(cluster: Any) -> None:
    running, engines = cluster
    engines["all"].does = slowly
    try:
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            replies = list(pool.map(lambda _: ask(running, "all", "together"), range(8)))
    finally:
        engines["all"].does = answers()
    assert {reply.status_code for reply in replies} == {200}
    assert sum(b"together" in asked.body for asked in engines["all"].asked) == 1


@pytest.mark.parametrize(("status", "sent"), [(400, 400), (500, 422)])
def test_an_error_is_not_kept(cluster: Any, status: int, sent: int) -> None:
    running, engines = cluster
    engines["all"].does = answers(status)
    try:
        assert ask(running, "all", f"error {status}").status_code == sent
    finally:
        engines["all"].does = answers()
    assert ask(running, "all", f"error {status}").headers["X-ManyEyes-Cache"] == "MISS"


def test_an_answer_cut_short_by_an_engine_that_stops_is_not_used_again(cluster: Any) -> None:
    running, engines = cluster
    engines["all"].does = answers(choices=[{"message": {"content": ""}, "finish_reason": "abort"}])
    try:
        assert ask(running, "all", "abort").json()["choices"][0]["finish_reason"] == "abort"
    finally:
        engines["all"].does = answers()
    again = ask(running, "all", "abort")
    assert again.json()["choices"][0]["finish_reason"] == "stop", again.headers
    third = ask(running, "all", "abort")
    assert (third.json()["choices"][0]["finish_reason"], third.headers["X-ManyEyes-Cache"]) == ("stop", "HIT")
