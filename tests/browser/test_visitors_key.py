"""Who logged in at the gateway is named in the page's own requests; nginx sets the header that this browser sends here."""

import hashlib
from pathlib import Path

import httpx

from manyeyes.config.credentials import ApiKey, ApiKeys
from manyeyes.devcluster.cluster import local_cluster
from manyeyes.devcluster.eventually import eventually
from tests.browser.browser_session import chromium, visiting


def test_an_answer_on_the_page_counts_for_the_visitors_key(tmp_path: Path) -> None:
    document = {"pools": [{"name": "big", "model": "org/Big-VL"}], "engines": [{"name": "big-0", "pool": "big"}]}
    keys = ApiKeys(keys=(ApiKey(name="alice", sha256=hashlib.sha256(b"secret").hexdigest()),))
    with local_cluster(tmp_path, document, keys=keys) as running, chromium() as browser:
        running.all_up({"big-0"})
        body = {"model": "big", "messages": [{"role": "user", "content": "Hello"}]}
        headers = {"Authorization": "Bearer secret"}
        question = f"{running.url}/v1/chat/completions"
        eventually(lambda: httpx.post(question, json=body, headers=headers).status_code == 200, 20, 0.2, "an answer")
        asked = running.log("access").count('"key":"alice"')
        running.start_page()
        with visiting(browser, running.page_url, extra_http_headers={"X-ManyEyes-Key": "alice"}) as visit:
            visit.ask("Hello")
            visit.wait_for_note(0)
        counted = f"{asked} requests of alice and one more"
        eventually(lambda: running.log("access").count('"key":"alice"') > asked, 5, 0.1, counted)
