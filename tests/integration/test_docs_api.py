"""The commands in docs/api.md and docs/adapter.md, run as they stand there."""

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from manyeyes.devcluster.cluster import ROOT, LocalCluster, local_cluster
from manyeyes.devcluster.eventually import eventually
from manyeyes.devcluster.ports import free_port, is_listening
from tests.integration.custom_endpoint import foreign
from tests.integration.documents import ADMIN_KEY, with_admin_key
from tests.integration.registry_client import serve


def commands(page: str) -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / page).read_text(), re.S)
    assert blocks
    return [block for block in blocks if "manyeyes admin-key" not in block]


def run(command: str, running: LocalCluster, swaps: dict[str, str]) -> str:
    for before, after in ({"http://localhost:8080": running.url} | swaps).items():
        command = command.replace(before, after)
    ended = subprocess.run(
        ["bash", "-e", "-c", command], capture_output=True, text=True, timeout=60, env={**os.environ, "KEY": ADMIN_KEY}
    )
    assert ended.returncode == 0, f"{command}\n{ended.stdout}{ended.stderr}"
    return ended.stdout


@pytest.mark.parametrize("page", ["docs/api.md", "docs/adapter.md"])
def test_every_command_does_what_the_page_says(tmp_path: Path, page: str) -> None:
    for name in ("cloud.key", "captions.key"):
        (with_admin_key(tmp_path) if name == "cloud.key" else tmp_path).joinpath("secrets", name).write_text("sk-x")
    document: dict[str, Any] = {
        "pools": [{"name": "qwen3-vl-8b", "model": "Qwen/Qwen3-VL-8B-Instruct-FP8"}],
        "engines": [{"name": "gpu-0", "pool": "qwen3-vl-8b"}],
    }
    with foreign(free_port()) as endpoint, local_cluster(tmp_path, document) as running:
        running.answers_from("qwen3-vl-8b", {"gpu-0"})
        swaps = {
            "10.0.0.7:8000": serve(running, "gpu-7", "qwen3-vl-8b", "Qwen/Qwen3-VL-8B-Instruct-FP8", "auto"),
            "https://api.example.com/compatible-mode": f"http://127.0.0.1:{endpoint.port}",
            "https://api.example.com/generate": endpoint.url,
        }
        eventually(lambda: is_listening(running.ports["gpu-7"]), 20)
        for command in commands(page):
            said = run(command, running, swaps)
            assert said.startswith("{")
            assert '"notice":"It' not in said
