"""Two copies of the page behind the real nginx: a visit stays with its copy, and goes on with the other one when that is killed."""

import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from gradio_client import Client, handle_file

from manyeyes.devcluster.cluster import LocalCluster
from manyeyes.devcluster.eventually import eventually
from tests.browser.concurrent_users import SAMPLING, Page
from tests.browser.webui_cluster import page_stand
from webui import samples

COOKIE = "manyeyes-copy"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    with page_stand(tmp_path_factory.mktemp("stand"), replicas=2) as running:
        yield running


def browser(cluster: LocalCluster) -> httpx.Client:
    return httpx.Client(base_url=cluster.url, headers={"Accept": "text/html"}, timeout=30, trust_env=False)


def chat(visit: httpx.Client, text: str, history: list[object]) -> list[object]:
    """Asks as the page's own script does; the chat that the visit is shown at last."""
    page = Page(visit.get("/config").json())
    body = page.call("question", "submit", "visit-1", [{"text": text, "files": []}, history, *SAMPLING])
    visit.post("/gradio_api/queue/join", json=body).raise_for_status()
    shown: list[object] = []
    with visit.stream("GET", "/gradio_api/queue/data", params={"session_hash": "visit-1"}) as stream:
        for line in stream.iter_lines():
            message: dict[str, Any] = json.loads(line[5:]) if line.startswith("data:") else {"msg": ""}
            if message["msg"] == "process_completed":
                assert message["success"], message
                shown = message["output"]["data"][0]
            if message["msg"] in ("process_completed", "close_stream"):
                break
    return shown


def test_visits_are_spread_and_each_stays_with_its_copy(cluster: LocalCluster) -> None:
    seen = set()
    for _ in range(12):
        with browser(cluster) as visit:
            visit.get("/")
            copy = visit.cookies[COOKIE]
            for _ in range(4):
                visit.get("/config")
                assert visit.cookies[COOKIE] == copy
            seen.add(copy)
    assert len(seen) == 2


def test_programs_which_keep_no_cookie_stay_with_one_copy(cluster: LocalCluster) -> None:
    client = Client(cluster.url, verbose=False)
    for _ in range(4):
        found = client.predict("x", [handle_file(str(samples.HERE / "receipt.png"))], "qwen3-vl-8b", api_name="/chat")
        assert found["error"] is None


def test_a_visit_whose_copy_is_killed_goes_on_with_the_other_and_its_own_chat(cluster: LocalCluster) -> None:
    """Last in this file: a copy is gone afterwards."""
    with browser(cluster) as visit:
        visit.get("/")
        copy = visit.cookies[COOKIE]
        shown = chat(visit, "one two three", [])
        assert "3 words" in json.dumps(shown)
        # Which process it is: the one that does not answer once it is gone.
        for page in cluster.pages:
            cluster.kill(page)
            if _moved(visit, copy):
                break
            cluster.start_page(page)
        else:
            raise AssertionError("the visit belonged to no copy")
        # The chat lives in the browser, which sends it along.
        shown = eventually(lambda: chat(visit, "four five", shown), 20, 0.2, "an answer from the other copy")
        assert [one["role"] for one in shown] == ["user", "assistant"] * 2  # type: ignore[index]  # as Gradio has messages
        counted = re.search(r"Your text has (\d+) words", json.dumps(shown[-1]))
        assert counted
        assert int(counted[1]) >= 5, "both questions were sent"


def _moved(visit: httpx.Client, copy: str) -> bool:
    visit.get("/config").raise_for_status()
    return visit.cookies[COOKIE] != copy
