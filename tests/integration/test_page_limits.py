"""What the page refuses: small files that unfold to hundreds of megabytes, and chats that hold a component of Gradio."""

import asyncio
import io
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from manyeyes.devcluster.cluster import LocalCluster
from tests.browser.concurrent_users import Page
from tests.browser.webui_cluster import page_stand


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    with page_stand(tmp_path_factory.mktemp("stand")) as running:
        yield running


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
