"""The Cluster tab and the banner over the page: what the controller, Prometheus, Locust and the gateway say, as HTML."""

import json
from typing import Any

import httpx
import pytest

from manyeyes.config.pools import Media, Pool
from webui.chat import streamed_answer
from webui.cluster import cluster_view, controller_client
from webui.cluster.cluster_view import pool_notices_html, pool_states_html
from webui.cluster.controller_client import (
    ClusterStatus,
    ControllerClient,
    LocustClient,
    parse_gauges,
    parse_query_result,
)
from webui.cluster.gateway_client import PoolStatus, parse_pools
from webui.files import attachments
from webui.files.attachments import AttachmentCost
from webui.user_error import UserError

ENGINE = {
    "name": "gpu-0",
    "state": "suspect",
    "reason": "no answer for 3 s",
    "in_flight": 7,
    "running": 3,
    "waiting": 0,
}
POOL = {
    "name": "big",
    "model": "org/Big-VL",
    "up": 1,
    "total": 1,
    "p95_ms": 812.4,
    "fallback": "small",
    "flavour": "cuda",
    "engines": [ENGINE | {"hidden_queue": 4, "gpus": [0]}],
}


def test_an_engine_shows_its_state_its_load_and_its_hidden_queue() -> None:
    gauges = {"tokens_per_s": {"gpu-0": 61.2}, "kv": {"gpu-0": 0.42}, "cached": {"gpu-0": 0.8}, "gpu": {"0": 97.0}}
    text = cluster_view.pools_html(ClusterStatus([POOL], gauges=gauges))
    for part in (
        "suspect",
        "no answer for 3 s",
        '<b class="bad">4</b>',
        "61",
        "42 %",
        "80 %",
        "0 (97 %)",
        "p95 812 ms",
    ):
        assert part in text
    assert cluster_view.engine_names(ClusterStatus([POOL])) == ["gpu-0"]


def test_an_older_controller_leaves_cells_empty() -> None:
    text = cluster_view.pools_html(ClusterStatus([POOL | {"engines": [{"name": "gpu-0", "state": "up"}]}]))
    assert text.count("<td>–</td>") == 8


def test_a_controller_that_is_gone_is_told_with_what_to_do() -> None:
    assert "docker compose ps controller" in cluster_view.pools_html(ClusterStatus(None))


def test_what_the_controller_says_is_escaped() -> None:
    events = [{"at": "2026-11-21T17:00:00+00:00", "sentence": "<script>"}]
    assert "<script>" not in cluster_view.events_html(ClusterStatus([], events))
    assert "17:00:00" in cluster_view.events_html(ClusterStatus([], events))


def test_gauges_are_read_from_prometheus_text_and_queries() -> None:
    text = 'manyeyes_engine_tokens_per_second{engine="gpu-0",pool="big"} 61.5\nother{engine="gpu-0"} 1\n'
    assert parse_gauges(text) == {"tokens_per_s": {"gpu-0": 61.5}, "kv": {}}
    result = [{"metric": {"engine": "a"}, "value": [1, "0.5"]}, {"metric": {"engine": "b"}, "value": [1, "NaN"]}]
    assert parse_query_result({"data": {"result": result}}) == {"a": 0.5}
    assert parse_query_result({"error": "x"}) == {}


def answering(controller: ControllerClient | LocustClient, handler: Any) -> None:
    controller._client = httpx.AsyncClient(transport=httpx.MockTransport(handler))


async def test_a_change_carries_the_typed_key_and_a_refusal_is_told_in_its_words() -> None:
    asked: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        if request.url.path.endswith("/scale"):
            return httpx.Response(409, json={"error": {"message": "big is served elsewhere."}})
        return httpx.Response(200, json={"in_flight": 2})

    controller = ControllerClient("http://controller:8081", "http://prometheus:9090")
    answering(controller, handler)
    assert "Draining gpu 0. Requests in flight: 2." in await controller.drain("gpu 0", " key ")
    assert asked[0].headers["authorization"] == "Bearer key"
    assert asked[0].url.raw_path == b"/api/engines/gpu%200/drain"
    with pytest.raises(UserError, match="served elsewhere"):
        await controller.scale("big", 2, "key")
    assert json.loads(asked[1].content) == {"engines": 2}
    with pytest.raises(UserError, match="admin key"):
        await controller.resume("gpu-0", "")
    assert len(asked) == 2


async def test_a_load_run_is_started_watched_and_refused_in_words() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        if request.method == "POST" and request.headers["authorization"] != "Bearer key":
            return httpx.Response(401, json={"error": {"message": "This is not the admin key."}})
        if request.url.path.endswith("/swarm"):
            assert request.content == b"user_count=20&spawn_rate=2.0"
            return httpx.Response(200, json={"success": True})
        if request.url.path.endswith("/stop"):  # Locust answers 405 to GET
            return httpx.Response(200 if request.method == "POST" else 405, json={"success": True})
        stats = {"state": "running", "user_count": 20, "total_rps": 12.34, "fail_ratio": 0.01}
        return httpx.Response(
            200, json=stats | {"current_response_time_percentiles": {"response_time_percentile_0.95": 850}}
        )

    run = LocustClient("http://loadtest:8089/locust")
    answering(run, handler)
    assert await run.start(20, " key ", 2.0) == "Starting 20 users, 2 per second."
    shown = controller_client.load_run_html(await run.stats())
    assert "running · 20 users · 12.3 requests/s · p95 850 ms · 1.0 % failed" in shown
    assert await run.stop("key") == "The run is stopping."
    with pytest.raises(UserError, match="1 to 500"):
        await run.start(5000, "key", 1)
    with pytest.raises(UserError, match="not the admin key"):
        await run.start(20, "guess")
    for attempt in (run.start(20, " "), run.stop("")):
        with pytest.raises(UserError, match="requires the admin key"):
            await attempt


def test_the_estimate_warns_of_what_the_pool_does_not_take() -> None:
    pool = Pool(name="big", model="org/Big", max_model_len=2048, media=Media(images_per_prompt=1))
    one, two = AttachmentCost("a.png", 900, "10 × 10", images=1), AttachmentCost("b.png", 1300, "10 × 10", images=1)
    assert "900 vision tokens" in attachments.estimate_html([one], "", pool)
    assert "alert" not in attachments.estimate_html([one], "", pool)
    assert "big accepts at most 1 images" in attachments.estimate_html([one, two], "", pool)
    assert "exceeds the context length" in attachments.estimate_html(
        [AttachmentCost("c.png", 2500, "", images=1)], "", pool
    )
    assert attachments.estimate_html([], "long text", pool) == ""


@pytest.mark.parametrize(
    ("text", "reasoning", "answer"),
    [
        ("plain", "", "plain"),
        ("<think>hm</think>\nyes", "hm", "yes"),
        ("hm</think>yes", "hm", "yes"),
        ("<think>still", "still", ""),
        ("<thi", "", ""),
    ],
    ids=["none", "both tags", "closing tag only", "still thinking", "half a tag"],
)
def test_thinking_is_told_from_the_answer(text: str, reasoning: str, answer: str) -> None:
    assert streamed_answer.split_reasoning(text) == (reasoning, answer)


URL = "http://gateway:8080"


def test_healthz_is_read() -> None:
    found: object = {
        "status": "ok",
        "pools": [{"name": "a", "up": 1, "total": 2, "notice": "n"}, {"name": "b", "up": 0, "total": 1}],
    }
    assert parse_pools(found) == [PoolStatus("a", 1, 2, "n"), PoolStatus("b", 0, 1)]


def test_anything_else_is_no_state() -> None:
    wrong: tuple[object, ...] = (
        None,
        "ok",
        [],
        {"pools": 3},
        {"pools": [{"name": "a"}]},
        {"pools": [{"name": "a", "up": "?", "total": 1}]},
    )
    for found in wrong:
        assert parse_pools(found) is None


def test_each_pool_tells_how_many_engines_are_up() -> None:
    html = pool_states_html([PoolStatus("a", 2, 2), PoolStatus("b", 0, 1)])
    assert "<b>a</b> 2 of 2 engines up" in html
    assert "<b>b</b> 0 of 1 engine up" in html


def test_a_suspect_engine_counts_as_up_and_is_told() -> None:
    engines = [{"name": "a-0", "state": "suspect"}, {"name": "a-1", "state": "up"}]
    found = parse_pools({"pools": [{"name": "a", "up": 2, "total": 2, "engines": engines}]})
    assert found == [PoolStatus("a", 2, 2, suspect=1)]
    assert '<span class="pool some">' in pool_states_html(found)
    assert "<b>a</b> 2 of 2 engines up, 1 suspect" in pool_states_html(found)


def test_a_notice_is_shown_and_cannot_bring_html() -> None:
    html = pool_notices_html([PoolStatus("a", 1, 1, "<b>noise</b>"), PoolStatus("b", 1, 1)], URL)
    assert "a: &lt;b&gt;noise&lt;/b&gt;" in html
    assert html.count("notice warning") == 1


def test_nothing_to_say_shows_nothing() -> None:
    assert pool_notices_html([PoolStatus("a", 2, 2)], URL) == ""


def test_a_gateway_out_of_reach_is_told() -> None:
    assert f"The gateway at {URL} cannot be reached." in pool_notices_html(None, URL)
