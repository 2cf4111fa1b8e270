"""The page with a users file, behind the real nginx: browsers and gradio_client log in, the API under /v1 asks for no password."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from gradio_client import Client
from gradio_client.exceptions import AuthenticationError

from manyeyes.config.credentials import set_password
from manyeyes.devcluster.cluster import LocalCluster
from tests.browser.webui_cluster import page_stand

PASSWORD = "a good password"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    folder = tmp_path_factory.mktemp("stand")
    set_password(folder / "users.yaml", "alice", PASSWORD)
    with page_stand(folder) as running:
        yield running


def test_gradio_client_works_with_a_login_and_not_without(cluster: LocalCluster) -> None:
    found = Client(cluster.url, auth=("alice", PASSWORD), verbose=False).predict("hi", [], api_name="/chat")
    assert found["error"] is None
    with pytest.raises((AuthenticationError, ValueError)):
        Client(cluster.url, auth=("alice", "a bad password"), verbose=False)
    with pytest.raises((AuthenticationError, ValueError)):
        Client(cluster.url, verbose=False)


def test_a_browser_is_led_to_the_login_and_from_there_to_the_page(cluster: LocalCluster) -> None:
    with httpx.Client(base_url=cluster.url, headers={"Accept": "text/html"}, follow_redirects=True) as browser:
        assert 'name="password"' in browser.get("/").text
        assert "gradio_config" not in browser.get("/gradio_api/info").text
        page = browser.post("/login", data={"username": "alice", "password": PASSWORD})
        assert "gradio_config" in page.text
        cookie = browser.cookies["manyeyes-login"]
        assert 'name="password"' in browser.get("/logout").text
    with httpx.Client(base_url=cluster.url, cookies={"manyeyes-login": cookie}) as stolen:
        assert stolen.get("/config").status_code == 401


def test_a_required_login_without_users_lets_nobody_in(tmp_path: Path) -> None:
    with page_stand(tmp_path, login=True) as cluster:
        assert httpx.get(f"{cluster.url}/config").status_code == 401
        assert "manyeyes user NAME" in httpx.get(f"{cluster.url}/login", headers={"Accept": "text/html"}).text


def test_the_api_and_the_health_of_the_cluster_ask_for_no_password(cluster: LocalCluster) -> None:
    assert cluster.ask("qwen3-vl-8b").status_code == 200
    assert cluster.healthz()["pools"]
    assert PASSWORD not in cluster.log("webui")
