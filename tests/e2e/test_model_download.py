"""Weights come from a hub once, before any engine starts; then engines load them from the volume, with no hub at all."""

import re
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from manyeyes.config.gateway import Images
from tests.e2e.fake_hub import hub
from tests.e2e.host import ROOT, Host

MODEL = "Qwen/Qwen3-VL-2B-Instruct"
PORT = 18095
CONFIG = f"""
name: manyeyes-hub
flavour: cpu
cpu_engines: 1
pools:
  - {{name: qwen3-vl-2b, model: {MODEL}, flavours: [cpu], max_model_len: 2048, if_weights_unavailable: qwen3-vl-tiny}}
  - {{name: qwen3-vl-tiny, model: tiny, flavours: [cpu], max_model_len: 2048}}
gateway: {{host: 127.0.0.1, port: {PORT}}}
monitoring: {{enabled: false}}
network: {{subnet: 10.213.80.0/24, controller_ip: 10.213.80.2}}
"""


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """The tiny model's files, which the hub gives out under the small model's name."""
    command = ["docker", "run", "--rm", "--network=none", "-v", f"{tmp_path}:/out", "-v", f"{ROOT}/manyeyes/engine:/app/manyeyes/engine:ro",
               "-w", "/app", "--entrypoint", "python", Images().vllm_cpu, "-m", "manyeyes.engine.tiny", "/out/model"]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    (tmp_path / "model/manyeyes-tiny.json").unlink()
    return tmp_path / "model"


@pytest.fixture
def docker_host() -> str:
    """This host's address as containers of any network reach it."""
    told = ["docker", "network", "inspect", "bridge", "--format", "{{(index .IPAM.Config 0).Gateway}}"]
    return subprocess.run(told, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    here = replace(Host.in_folder(tmp_path, CONFIG), more={"HF_ENDPOINT": "http://127.0.0.1:9"})
    yield here
    here.make("clean")


def test_a_model_is_downloaded_once_and_then_served_without_the_hub(
    host: Host, weights: Path, docker_host: str
) -> None:
    with hub(docker_host, MODEL, weights, seconds=14) as (endpoint, seen):
        host = replace(host, more={"HF_ENDPOINT": endpoint})
        status, said = host.make("up")
        assert status == 0, said
        assert re.search(r"Qwen3-VL-2B-Instruct: .* GB \(\d+ %\), ", said), "progress of the download"
        assert any(path.endswith("/model.safetensors") for path in seen)
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4}
    reply = httpx.post(f"http://127.0.0.1:{PORT}/v1/chat/completions", json=body, timeout=60)
    assert reply.status_code == 200, reply.text
    assert reply.headers["X-ManyEyes-Pool"] == "qwen3-vl-2b"
    status, said = host.make("down")
    assert status == 0, said
    # The hub is gone; the second start finds the model complete in the volume.
    status, said = host.make("up")
    assert status == 0, said
    assert "are not available" not in said
    assert httpx.post(f"http://127.0.0.1:{PORT}/v1/chat/completions", json=body, timeout=60).status_code == 200


def test_a_model_in_a_folder_of_this_host_is_served_from_there(host: Host, weights: Path, tmp_path: Path) -> None:
    for folder in ("hub", "cache"):
        (tmp_path / folder).mkdir()
    host.config.write_text(f"""
name: manyeyes-hub
engines: [{{name: cpu-0, pool: mine, flavour: cpu, memory_gb: 6}}]
pools: [{{name: mine, model: {weights}, max_model_len: 2048}}]
models: {{offline: true, volume: {tmp_path}/hub, cache_volume: {tmp_path}/cache}}
gateway: {{host: 127.0.0.1, port: {PORT}}}
monitoring: {{enabled: false}}
network: {{subnet: 10.213.80.0/24, controller_ip: 10.213.80.2}}
""")
    status, said = host.make("up")
    assert status == 0, said
    body = {"model": "mine", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4}
    assert httpx.post(f"http://127.0.0.1:{PORT}/v1/chat/completions", json=body, timeout=60).status_code == 200
