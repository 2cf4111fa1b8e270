"""The registry's calls, and engines that cluster.yaml does not know."""

import sys
from typing import Any

import httpx

from manyeyes.devcluster.cluster import QUICK, LocalCluster
from manyeyes.devcluster.eventually import eventually
from manyeyes.devcluster.ports import free_port
from tests.integration.documents import ADMIN_KEY

AUTHORIZED = {"Authorization": f"Bearer {ADMIN_KEY}"}


def call(
    running: LocalCluster, method: str, path: str, headers: dict[str, str] | None = None, **more: Any
) -> httpx.Response:
    url = f"http://127.0.0.1:{running.ports['controller']}/api{path}"
    return running.client.request(method, url, headers=AUTHORIZED if headers is None else headers, **more)


def register(running: LocalCluster, name: str, pool: str = "big", address: str = "127.0.0.1:9", **more: Any) -> None:
    reply = call(running, "POST", "/engines", json={"name": name, "pool": pool, "address": address, **more})
    assert reply.status_code == 201, reply.text


def refusal(reply: httpx.Response) -> tuple[int, str]:
    """Status and code of an error in OpenAI's form."""
    error = reply.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"].strip()
    return reply.status_code, error["code"]


def registered_engines(running: LocalCluster) -> dict[str, dict[str, Any]]:
    return {one["name"]: one for one in call(running, "GET", "/engines", {}).json()["engines"]}


def controller_answers(running: LocalCluster) -> None:
    def check() -> bool:
        try:
            return call(running, "GET", "/engines", {}).status_code == 200
        except httpx.TransportError:
            return False

    eventually(check, 30, 0.1, "the controller answers")


def serve(running: LocalCluster, name: str, *names: str) -> str:
    """Starts an engine that cluster.yaml does not know; -> its address."""
    port = running.ports.setdefault(name, free_port())
    flags = ["--host=127.0.0.1", f"--port={port}", "--served-model-name", *names, *QUICK]
    limit = '--limit-mm-per-prompt={"image":4,"video":1}'
    running.start(name, [sys.executable, "-m", "manyeyes.emulator", *flags, limit])
    return f"127.0.0.1:{port}"
