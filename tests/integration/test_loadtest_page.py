"""Locust's page at /locust/: behind the admin key, under its own path, with first tokens in a table beside Locust's."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from manyeyes.config.credentials import ApiKey, ApiKeys
from manyeyes.devcluster.cluster import ROOT, LocalCluster, local_cluster
from manyeyes.devcluster.eventually import eventually
from manyeyes.devcluster.ports import free_port
from tests.integration.documents import with_admin_key
from tests.integration.raw_tcp_engine import raw_engine
from tests.integration.registry_client import AUTHORIZED

KEY = "sk-load"
ALICE = ApiKey(name="alice", sha256=hashlib.sha256(KEY.encode()).hexdigest())


@dataclass
class Page:
    cluster: LocalCluster
    url: str
    client: httpx.Client

    def rows(self) -> list[dict[str, Any]]:
        tables = self.client.get(f"{self.url}/stats/requests").json()["extendedStats"]
        return list(tables[0]["data"])


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """Locust as its container runs it, asking through the gateway's port for the page."""
    folder = with_admin_key(tmp_path_factory.mktemp("local_cluster"))
    document = {"pools": [{"name": "big", "model": "org/Big-VL"}], "engines": [{"name": "gpu-0", "pool": "big"}]}
    client = httpx.Client(timeout=30, headers=AUTHORIZED)
    with local_cluster(folder, document, keys=ApiKeys(keys=(ALICE,))) as running, client:
        running.all_up({"gpu-0"})
        port = free_port()
        inside = f"http://127.0.0.1:{running.ports['page']}"
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "MANYEYES_GATEWAY_URL": inside, "MANYEYES_MODEL": "big"}
        environment["MANYEYES_CONTROLLER_URL"] = f"http://127.0.0.1:{running.ports['controller']}"
        environment["MANYEYES_PAGE_KEY_FILE"] = str(folder / "secrets/page.key")
        words = ["-m", "locust", "-f", "loadtest/locustfile.py", "--web-base-path", "/locust", "--host", inside]
        with (folder / "locust.log").open("w") as log:
            locust = subprocess.Popen(
                [sys.executable, *words, "--web-host=127.0.0.1", f"--web-port={port}"],
                cwd=ROOT,
                env=environment,
                stdout=log,
                stderr=log,
            )
        url = f"http://127.0.0.1:{port}/locust"
        try:
            eventually(lambda: _answers(client, url), 30, 0.2, "Locust's page answers")
            yield Page(running, url, client)
        finally:
            locust.terminate()
            locust.wait(timeout=20)


def _answers(client: httpx.Client, url: str) -> bool:
    try:
        return client.get(f"{url}/").status_code == 200
    except httpx.TransportError:
        return False


def test_the_page_and_what_it_loads_lie_under_its_path_and_it_offers_scenarios(page: Page) -> None:
    text = page.client.get(f"{page.url}/").text
    assert "Tokens" in text
    assert "image:3,video:1" in text
    asset = text.split('src="')[1].split('"')[0]
    assert page.client.get(f"{page.url}/{asset.removeprefix('./')}").status_code == 200


def test_a_test_started_on_the_page_shows_first_tokens_and_engines(page: Page) -> None:
    form = {"user_count": "4", "spawn_rate": "4", "scenario": "text", "model": "big"}
    assert page.client.post(f"{page.url}/swarm", data=form).json()["success"] is True
    rows = eventually(lambda: [row for row in page.rows() if row["answers"] > 3], 40, 0.5, "people are answered")
    assert page.client.post(f"{page.url}/stop").status_code == 200
    assert rows[0]["scenario"] == "text"
    assert rows[0]["first_p50_ms"] > 0
    assert rows[0]["engines"].startswith("gpu-0")


@pytest.mark.parametrize(
    "headers",
    [{}, {"Authorization": f"Bearer {KEY}"}, {"Authorization": "Bearer \u00e9"}, {"Authorization": "Basic Og=="}],
)
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/swarm"),
        ("GET", "/swarm"),
        ("POST", "/stop"),
        ("POST", "/stats/reset"),
        ("GET", "/"),
        ("GET", "/logs"),
    ],
)
def test_without_the_admin_key_nothing_is_started_stopped_or_shown(
    page: Page, headers: dict[str, str], method: str, path: str
) -> None:
    """An API key is none: its limits would not apply to the load."""
    encoded = {name.encode(): value.encode() for name, value in headers.items()}
    form = {"user_count": "4", "spawn_rate": "4"} if method == "POST" else None
    with httpx.Client(timeout=30) as stranger:
        refused = stranger.request(method, f"{page.url}{path}", data=form, headers=encoded)
    assert refused.status_code == 401, refused.text
    assert refused.headers["WWW-Authenticate"].startswith("Basic realm=")


def test_the_page_of_the_cluster_reads_the_figures_without_the_key_and_nobody_does_from_outside(page: Page) -> None:
    with httpx.Client(timeout=30) as client:
        assert client.get(f"{page.url}/stats/requests").status_code == 200
        assert client.get(f"{page.url}/stats/requests", headers={"X-ManyEyes-Outside": "1"}).status_code == 401


@pytest.mark.parametrize(
    "headers", [{"Origin": "http://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}]
)
def test_another_sites_request_is_refused_although_the_browser_sends_the_key(
    page: Page, headers: dict[str, str]
) -> None:
    form = {"user_count": "4", "spawn_rate": "4"}
    assert page.client.post(f"{page.url}/swarm", data=form, headers=headers).status_code == 403


def test_load_goes_to_the_gateway_whatever_host_the_form_names(page: Page) -> None:
    with raw_engine(0) as stranger:
        form = {"user_count": "4", "spawn_rate": "4", "scenario": "text", "model": "big"}
        form["host"] = f"http://127.0.0.1:{stranger.port}"
        assert page.client.post(f"{page.url}/swarm", data=form).json()["success"] is True
        rows = eventually(lambda: [row for row in page.rows() if row["answers"] > 3], 40, 0.5, "people are answered")
        assert page.client.post(f"{page.url}/stop").status_code == 200
        assert rows[0]["engines"].startswith("gpu-0")
        assert stranger.asked == 0


def test_the_gateway_says_when_it_does_not_run(page: Page) -> None:
    missing = page.client.get(f"{page.cluster.url}/locust/")
    assert missing.status_code == 503
    assert "manyeyes locust" in missing.text
    moved = page.client.get(f"{page.cluster.url}/locust")
    assert (moved.status_code, moved.headers["location"]) == (301, "/locust/")
