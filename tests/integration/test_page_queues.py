"""The queues of the page are sized by webui.concurrency, and one that is full keeps nobody waiting in another."""

from pathlib import Path

from gradio_client import Client

from manyeyes.devcluster.cluster import QUICK
from manyeyes.devcluster.eventually import eventually
from tests.browser.webui_cluster import page_stand

SLOW = (*QUICK, "--tpot-ms=150")  # some seconds an answer


def test_a_slow_answer_keeps_only_its_own_queue_waiting(tmp_path: Path) -> None:
    with page_stand(tmp_path, SLOW, concurrency={"api_clients": 1}, threads=1) as running:
        client = Client(running.url, verbose=False)
        first = client.submit("Tell a long story", [], "qwen3-vl-8b", api_name="/chat")
        eventually(lambda: first.status().code.name == "PROCESSING", 20, 0.05, "the first answer comes")
        second = client.submit("hi", [], "qwen3-vl-8b", api_name="/chat")
        eventually(lambda: second.status().code.name == "IN_QUEUE", 20, 0.05, "the second one waits")
        assert client.predict(api_name="/cluster")["pools"]
        other = client.submit([{"model": "qwen3-vl-4b", "text": "x", "max_tokens": 2}], api_name="/individual")
        assert other.result(timeout=20)["answers"][0]["error"] is None
        assert not first.done()
        assert not second.done()
        assert first.result(timeout=60)["error"] is None
        assert second.result(timeout=60)["error"] is None
