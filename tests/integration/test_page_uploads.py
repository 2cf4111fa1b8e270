"""Uploads through the real nginx: readable by the browser that sent them alone, deleted when no open chat needs them; and what is refused."""

import asyncio
import contextlib
import io
import os
import secrets
import struct
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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


def bomb(width: int, height: int) -> bytes:
    """A transparent PNG of one colour: some kilobytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packed, rows = zlib.compressobj(9), io.BytesIO()
    for _ in range(height):
        rows.write(packed.compress(bytes(1 + 4 * width)))
    rows.write(packed.flush())
    head = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    unlike = chunk(b"tEXt", b"Comment\0" + os.urandom(8).hex().encode())
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + unlike + chunk(b"IDAT", rows.getvalue()) + chunk(b"IEND", b"")


def peak_mb(cluster: LocalCluster) -> float:
    status = Path(f"/proc/{cluster.processes['webui'].pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


async def called(client: httpx.AsyncClient, name: str, data: list[Any]) -> str:
    joined = await client.post(f"/gradio_api/call/{name}", json={"data": data})
    return (await client.get(f"/gradio_api/call/{name}/{joined.json()['event_id']}")).text


async def ask_all(url: str, files: list[bytes]) -> list[str]:
    """Each file in a chat of its own and, at the same time, in one batch of the Documents tab and as a screenshot."""
    async with httpx.AsyncClient(base_url=url, timeout=120, trust_env=False) as client:
        named = []
        for number, data in enumerate(files):
            told = await client.post("/gradio_api/upload", files={"files": (f"{number}.png", data)})
            named.append({"path": told.json()[0], "meta": {"_type": "gradio.FileData"}})
        chats = [
            called(client, "chat", ["x", [one], "qwen3-vl-8b", "", 0.7, 0.8, 8, None, 1280, 2, 16, None])
            for one in named
        ]
        pages = called(client, "documents", [named, "x", "qwen3-vl-8b", "", 8, 8])
        screen = called(client, "ground", [named[0], "x", "Find (boxes)", "qwen3-vl-8b", 8])
        return list(await asyncio.gather(*chats, pages, screen))


def test_pictures_over_the_limit_cost_nothing_and_are_told(cluster: LocalCluster) -> None:
    before = peak_mb(cluster)
    found = asyncio.run(ask_all(cluster.url, [bomb(9990, 9990)]))
    assert all("too many pixels" in text for text in found)
    assert peak_mb(cluster) < before + 100


def test_a_chat_that_holds_a_component_of_gradio_is_refused(cluster: LocalCluster) -> None:
    with httpx.Client(base_url=cluster.url, timeout=60, trust_env=False) as client:
        page = Page(client.get("/config").json())

        def undone(content: dict[str, Any]) -> int:
            chat = [{"role": "user", "content": [content], "metadata": None, "options": None}]
            body = page.call("chat", "undo", "visit", [chat], {"index": 0, "value": "x"})
            return client.post("/gradio_api/run/predict", json=body).status_code

        component = {"component": "textbox", "value": "x", "constructor_args": {}, "props": {}}
        assert undone({"type": "text", "text": "x"}) == 200
        assert undone(component | {"type": "component"}) == 500
