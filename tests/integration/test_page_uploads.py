"""Uploads through the real nginx: readable by the browser that sent them alone, and deleted when no open chat needs them."""

import contextlib
import io
import secrets
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError
from PIL import Image

from manyeyes.devcluster.cluster import LocalCluster
from manyeyes.devcluster.eventually import eventually
from tests.browser.concurrent_users import Page
from tests.browser.webui_cluster import page_stand


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    with page_stand(tmp_path_factory.mktemp("stand")) as running:
        yield running


class Browser:
    """One visit of one browser, as the page's own script speaks."""

    def __init__(self, cluster: LocalCluster) -> None:
        self.client = httpx.Client(base_url=cluster.url, timeout=30, trust_env=False)
        self.client.get("/", headers={"Accept": "text/html"})
        self.page = Page(self.client.get("/config").json())
        self.visit = secrets.token_hex(5)

    def upload(self, name: str = "cat.png") -> str:
        picture = io.BytesIO()
        Image.frombytes("RGB", (8, 8), secrets.token_bytes(192)).save(picture, "PNG")
        return str(self.client.post("/gradio_api/upload", files={"files": (name, picture.getvalue())}).json()[0])

    def read(self, path: str) -> int:
        return self.client.get(f"/gradio_api/file={path}").status_code

    def attach(self, *paths: str) -> httpx.Response:
        files = [{"path": path, "meta": {"_type": "gradio.FileData"}} for path in paths]
        data = [{"text": "", "files": files}, "qwen3-vl-8b", 1280, 2, 16]
        return self.client.post("/gradio_api/run/predict", json=self.page.call("question", "change", self.visit, data))

    @contextlib.contextmanager
    def open(self) -> Iterator[None]:
        """Holds the line that tells the page that its visitor is there."""
        came, close = threading.Event(), threading.Event()

        def beat() -> None:
            with self.client.stream("GET", f"/gradio_api/heartbeat/{self.visit}") as stream:
                for _ in stream.iter_raw():
                    came.set()
                    close.wait(30)
                    return

        beating = threading.Thread(target=beat)
        beating.start()
        assert came.wait(20)
        yield
        close.set()
        beating.join()


@pytest.fixture
def two(cluster: LocalCluster) -> Iterator[tuple[Browser, Browser]]:
    one, other = Browser(cluster), Browser(cluster)
    yield one, other
    one.client.close()
    other.client.close()


def test_a_file_is_readable_by_the_browser_that_sent_it_and_by_no_other(
    cluster: LocalCluster, two: tuple[Browser, Browser]
) -> None:
    one, other = two
    path = one.upload()
    assert one.read(path) == 200
    assert other.read(path) == 403
    assert httpx.get(f"{cluster.url}/gradio_api/file={path}").status_code == 403
    assert "8 × 8" in one.attach(path).text
    refused = other.attach(path)
    assert refused.status_code == 500
    assert "8 × 8" not in refused.text
    program = Client(cluster.url, verbose=False)
    with pytest.raises(AppError, match="not uploaded"):
        program.predict("x", [{"path": path}], "qwen3-vl-8b", api_name="/chat")


def test_a_file_goes_when_it_is_taken_out_and_when_the_page_is_closed(two: tuple[Browser, Browser]) -> None:
    browser, _ = two
    with browser.open():
        taken_out, kept = browser.upload(), browser.upload()
        browser.attach(taken_out, kept)
        assert Path(taken_out).exists()
        browser.attach(kept)
        assert not Path(taken_out).exists()
        assert Path(kept).exists()
    eventually(lambda: not Path(kept).exists(), 20, 0.1, "the closed page's file is deleted")


@pytest.mark.parametrize("prefix", ["", "/zh"])
def test_gradios_older_address_of_a_file_is_closed_in_both_spellings(two: tuple[Browser, Browser], prefix: str) -> None:
    one, other = two
    path = one.upload()
    for browser in (one, other):
        for spelling in (
            f"/gradio_api/file/{path}",
            f"/gradio_api/file/{path.lstrip('/')}",
            f"/gradio_api/%66ile/{path}",
        ):
            assert browser.client.get(f"{prefix}{spelling}").status_code == 404
    assert one.read(path) == 200


@pytest.mark.parametrize("host", ["gpu.corp.example:8080", "localhost:8080", "[::1]:8080"])
def test_a_page_of_another_origin_reads_nothing_and_asks_nothing(cluster: LocalCluster, host: str) -> None:
    own = {"Host": host, "Origin": f"http://{host}"}
    with httpx.Client(base_url=cluster.url, timeout=30, trust_env=False) as client:
        for foreign in ("https://evil.example", "null", "http://gpu.corp.example:3000"):
            headers = {"Host": host, "Origin": foreign}
            preflight = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
            found = [
                client.get("/config", headers=headers),
                client.options("/gradio_api/call/models", headers=headers | preflight),
                client.post("/gradio_api/call/models", headers=headers, json={"data": []}),
                client.post("/gradio_api/upload", headers=headers, files={"files": ("a.png", b"x")}),
            ]
            assert [response.status_code for response in found] == [403] * 4
            assert all("access-control-allow-origin" not in response.headers for response in found)
        told = client.post("/gradio_api/call/models", headers=own, json={"data": []})
        assert told.status_code == 200
        assert "access-control-allow-origin" not in told.headers
        navigates = {
            "Host": host,
            "Sec-Fetch-Site": "cross-site",
            "Sec-Fetch-Mode": "navigate",
            "Sec-Fetch-Dest": "document",
        }
        assert client.get("/", headers=navigates).status_code == 200
