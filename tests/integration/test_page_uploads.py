"""Uploads through the real nginx: readable by the browser that sent them alone, deleted when no open chat needs them; and what is refused."""

import asyncio
import contextlib
import io
import os
import re
import secrets
import socket
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
from tests.unit.test_webui_decoders import OVER_LIMITS, pdf_bomb


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    folder = tmp_path_factory.mktemp("stand")
    with page_stand(folder, host_names=["gpu.corp.example"], upload_mb_per_visitor=20, decode_timeout_s=2) as running:
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
    for named in ("/etc/passwd", "http://127.0.0.1/x.png", "HTTPS://example.com/x.png", "file:///etc/passwd"):
        assert "not uploaded" in (text := one.attach(named).text), text
        assert "internal error" not in text
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
            f"/gradio_api//file={path}",
            f"//gradio_api/file={path}",
            f"/file={path}",
            f"/gradio_api/file={path.lstrip('/')}",
            "/gradio_api/file=https://example.com/x.png",
            f"/gradio_api/proxy={path}",
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


def test_an_upload_is_its_owners_in_every_spelling_and_method(two: tuple[Browser, Browser]) -> None:
    one, other = two
    path = one.upload()
    folder, name = path.rpartition("/")[::2]
    for spelling in (
        path, f"/{path}", f"{folder}//{name}", f"{folder}/./{name}", f"{folder}/../{folder.rpartition('/')[2]}/{name}",
        f"/proc/self/root{path}", f"/proc/self/cwd{path}", path.replace("/", "%2F"), f"{path}/", f"x{path}",
        f"/gradio_api/file={path}", "/etc/passwd", "/proc/self/environ",
    ):  # fmt: skip
        for headers in ({}, {"Range": "bytes=0-5"}):
            for method in ("GET", "HEAD"):
                found = other.client.request(method, f"/gradio_api/file={spelling}", headers=headers)
                assert found.status_code in (400, 403, 404), (method, spelling)
    assert one.client.head(f"/gradio_api/file={path}").status_code == 200
    assert one.client.get(f"/gradio_api/file={path}", headers={"Range": "bytes=0-5"}).status_code == 206


@pytest.mark.parametrize("prefix", ["", "/zh"])
def test_descriptions_and_tools_of_gradio_are_closed_under_every_language(cluster: LocalCluster, prefix: str) -> None:
    for path in ("openapi.json", "gradio_api/openapi.json", "monitoring", "gradio_api/runs", "gradio_api/queue/status"):
        assert httpx.get(f"{cluster.url}{prefix}/{path}", trust_env=False).status_code == 404
    assert httpx.post(f"{cluster.url}{prefix}/gradio_api/component_server", json={}).status_code == 404


def test_a_strangers_name_for_this_address_gets_nothing(cluster: LocalCluster) -> None:
    for host, status in (("evil.example:8080", 403), ("gpu.corp.example:8080", 200), ("gpu:8080", 200)):
        own = {"Host": host, "Origin": f"http://{host}", "Sec-Fetch-Site": "same-origin"}
        for path in ("/", "/config", "/zh/config"):
            assert httpx.get(f"{cluster.url}{path}", headers=own, trust_env=False).status_code == status
    refused = httpx.get(cluster.url, headers={"Host": "evil.example"}, trust_env=False)
    assert "webui.host_names" in refused.text


def test_a_visitor_who_fills_the_quota_is_refused_with_a_sentence_and_others_are_not(
    two: tuple[Browser, Browser],
) -> None:
    one, other = two
    big = secrets.token_bytes(1024) + bytes(9 << 20)

    def send(browser: Browser) -> httpx.Response:
        return browser.client.post("/gradio_api/upload", files={"files": ("a.png", secrets.token_bytes(8) + big)})

    found = [send(one) for _ in range(4)]
    assert [each.status_code for each in found] == [200, 200, 413, 413]
    assert "would exceed 20 MB" in found[-1].text
    assert other.read(other.upload()) == 200
    assert len({each.json()[0] for each in found[:2]}) == 2


def test_an_upload_that_ends_early_or_names_no_field_leaves_nothing(cluster: LocalCluster) -> None:
    folder = cluster.folder / "uploads-webui"
    before = set(folder.rglob("*"))
    part = b'--x\r\nContent-Disposition: form-data; name="%b"; filename="a.png"\r\n\r\n' + b"a" * 300_000
    head = b"POST /gradio_api/upload HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\n"
    with socket.create_connection(("127.0.0.1", cluster.ports["webui"])) as line:
        line.sendall(head + b"Content-Length: 9000000\r\n\r\n" + part % b"files")
        eventually(lambda: set(folder.rglob("*")) > before, 20, 0.05, "a part of it was received")
    eventually(lambda: set(folder.rglob("*")) == before, 20, 0.05, "it is deleted")
    with httpx.Client(base_url=cluster.url, trust_env=False) as client:
        told = client.post("/gradio_api/upload", files={"other": ("a.png", b"x" * 300_000)})
        assert told.json() == []
        eventually(lambda: set(folder.rglob("*")) == before, 20, 0.05, "it is deleted after the answer")
    # nginx sends a length if it has received the whole body, so the page is asked directly.
    with httpx.Client(base_url=f"http://localhost:{cluster.ports['webui']}", trust_env=False) as client:
        chunks = client.post(
            "/gradio_api/upload", content=iter([part]), headers={"Content-Type": "multipart/form-data; boundary=x"}
        )
        assert chunks.status_code == 411
        assert set(folder.rglob("*")) == before


def test_a_pdf_that_takes_days_costs_its_sender_a_sentence(cluster: LocalCluster, two: tuple[Browser, Browser]) -> None:
    async def ask() -> tuple[str, str]:
        async with httpx.AsyncClient(base_url=cluster.url, timeout=300, trust_env=False) as client:
            sent = await client.post("/gradio_api/upload", files={"files": ("bomb.pdf", pdf_bomb())})
            named = {"path": sent.json()[0], "meta": {"_type": "gradio.FileData"}}
            hostile = called(client, "documents", [[named], "x", "qwen3-vl-8b", "", 8, 8])
            return await asyncio.gather(hostile, called(client, "models", []))

    hostile, models = asyncio.run(ask())
    assert re.search(OVER_LIMITS, hostile)
    assert "qwen3-vl-8b" in models


def test_a_call_with_too_few_arguments_is_told_so_and_logged_without_them(cluster: LocalCluster) -> None:
    with httpx.Client(base_url=cluster.url, timeout=60, trust_env=False) as client:
        for name, data in (
            ("fallback", ["PROMPT-SECRET", "Primary as configured", "http://172.18.0.1:1/v1", "m", "sk-SECRET"]),
            ("drain", ["ADMIN-SECRET"]),
            ("chat", [{"a": "sk-SECRET"}]),
            ("chat_markdown", [{"role": "sk-SECRET"}, 3]),
            ("estimate", ["sk-SECRET", {"path": "sk-SECRET"}, "sk-SECRET", "sk-SECRET", []]),
            ("compare", "sk-SECRET"),
        ):
            joined = client.post(f"/gradio_api/call/{name}", json={"data": data})
            if joined.status_code == 200:
                told = client.get(f"/gradio_api/call/{name}/{joined.json()['event_id']}")
                assert "event: error" in told.text, told.text
        for name in ("predict", "chat"):
            client.post(f"/gradio_api/run/{name}", json={"data": ["sk-SECRET"], "fn_index": 3})
    assert "SECRET" not in cluster.log("webui")


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
