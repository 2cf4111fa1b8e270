"""The page asks on behalf of its visitor, through the port that takes the name of a key for the key."""

import asyncio
import contextlib
import hashlib
import time
from collections.abc import Iterator

import pytest

from manyeyes.config.credentials import ApiKey, ApiKeys
from manyeyes.devcluster.cluster import LocalCluster, local_cluster
from manyeyes.devcluster.eventually import eventually
from webui.chat.completion_stream import ChatRequest
from webui.chat.streamed_answer import StreamedAnswer
from webui.cluster.gateway_client import GatewayClient
from webui.settings import WebuiSettings

ALICE = ApiKey(name="alice", sha256=hashlib.sha256(b"secret").hexdigest(), requests_per_minute=3)
BOB = ApiKey(name="bob", sha256=hashlib.sha256(b"other").hexdigest())


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    document = {
        "pools": [{"name": "big", "model": "org/Big-VL"}, {"name": "small", "model": "org/Small-VL"}],
        "engines": [{"name": "big-0", "pool": "big"}, {"name": "small-0", "pool": "small"}],
        "auto": [{"pool": "small", "min_images": 1}, {"pool": "big"}],
    }
    with local_cluster(tmp_path_factory.mktemp("local_cluster"), document, keys=ApiKeys(keys=(ALICE, BOB))) as running:
        running.all_up({"big-0", "small-0"})
        eventually(lambda: ask(running).failure is None, 20, 0.2, "the page is answered")
        yield running


def pages_gateway(cluster: LocalCluster) -> GatewayClient:
    (page_key,) = cluster.page_headers.values()
    return GatewayClient(WebuiSettings(gateway_url=f"http://127.0.0.1:{cluster.ports['page']}", page_key=page_key))


def ask(cluster: LocalCluster, key: str = "bob", model: str = "big") -> StreamedAnswer:
    async def asking() -> StreamedAnswer:
        answer = StreamedAnswer(started_s=time.monotonic())
        messages = [{"role": "user", "content": "Hello"}]
        async with contextlib.aclosing(pages_gateway(cluster)) as gateway:
            await gateway.stream(ChatRequest(model, messages, "page-1", 0.7, 0.8, 4, key), answer)
        return answer

    return asyncio.run(asking())


def test_auto_is_offered_last(cluster: LocalCluster) -> None:
    async def models() -> list[str]:
        async with contextlib.aclosing(pages_gateway(cluster)) as gateway:
            return await gateway.models()

    assert asyncio.run(models()) == ["big", "org/Big-VL", "small", "org/Small-VL", "auto"]


def test_the_answer_says_why_auto_chose(cluster: LocalCluster) -> None:
    answer = ask(cluster, model="auto")
    assert (answer.served.engine, answer.served.route) == ("big-0", "rule 2: any request")


def test_a_visitors_requests_count_for_the_visitors_key(cluster: LocalCluster) -> None:
    answers = [ask(cluster, "alice") for _ in range(6)]
    assert answers[0].failure is None
    assert answers[-1].failure is not None
    assert "'alice'" in answers[-1].failure.summary
    eventually(lambda: '"key":"alice"' in cluster.log("access"), 5, 0.1, "the log names the visitor's key")
    assert ask(cluster).failure is None, "another key has no limit"


def test_a_request_that_names_no_key_is_refused(cluster: LocalCluster) -> None:
    failure = ask(cluster, "").failure
    assert failure is not None
    assert "key" in failure.summary
