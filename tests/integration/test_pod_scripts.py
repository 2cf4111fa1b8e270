"""What runs beside an engine in its pod: the startup probe with its picture, and the way out."""

import base64
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from manyeyes.controller.health.probe import WARM_UP_PNG
from manyeyes.devcluster.cluster import ROOT
from manyeyes.devcluster.eventually import eventually
from manyeyes.devcluster.ports import free_port, is_listening
from manyeyes.engine.pod.startup_probe import build_request
from manyeyes.render.kubernetes.models import CODE, LOGS

POD = ROOT / "manyeyes/engine/pod"


def run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    # As in the engine's image: no package of this project, no environment of ours.
    command = [sys.executable, "-I", str(POD / script), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd="/")


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def engine(port: int, tmp_path: Path) -> Iterator[str]:
    flags = ["--host=127.0.0.1", f"--port={port}", "--served-model-name", "big", "--enable-server-load-tracking"]
    quick = ["--start-seconds=1", "--ttft-ms=20", "--image-ms=5", "--tpot-ms=20", '--limit-mm-per-prompt={"image":1}']
    with (tmp_path / "engine.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "manyeyes.emulator", *flags, *quick], cwd=ROOT, stdout=log, stderr=log
        )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def test_a_pod_is_warm_once_its_engine_has_answered_a_picture_and_not_before(engine: str, port: int) -> None:
    assert run("startup_probe.py", "big", f"--url={engine}", "--timeout-s=5").returncode == 1, "nothing listens yet"
    eventually(lambda: is_listening(port), 30, 0.05)
    eventually(
        lambda: run("startup_probe.py", "big", f"--url={engine}", "--timeout-s=5").returncode == 0,
        30,
        0.2,
        "it is warm",
    )
    asked = httpx.get(f"{engine}/metrics", trust_env=False).text
    assert any(
        line.startswith("vllm:request_success_total") and not line.endswith(" 0.0") for line in asked.splitlines()
    )
    refused = run("startup_probe.py", "another", f"--url={engine}", "--timeout-s=5")
    assert refused.returncode == 1
    assert "404" in refused.stderr


def test_the_picture_is_the_controllers() -> None:
    (content, _) = build_request("m", True)["messages"][0]["content"]  # type: ignore[index]
    assert base64.b64decode(content["image_url"]["url"].partition(",")[2]) == WARM_UP_PNG
    assert "image_url" not in json.dumps(build_request("m", False))


def test_an_engine_is_told_to_stop_after_gateways_know_and_what_it_has_is_finished(engine: str, port: int) -> None:
    eventually(
        lambda: is_listening(port) and httpx.get(f"{engine}/health", trust_env=False).status_code == 200, 30, 0.1
    )
    body = {"model": "big", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 100, "ignore_eos": True}
    began = time.monotonic()
    leaving = subprocess.Popen(
        [sys.executable, "-I", POD / "pre_stop.py", "--announced-s=1", "--finish-s=30", f"--url={engine}"]
    )
    reply = httpx.post(f"{engine}/v1/chat/completions", json=body, timeout=30, trust_env=False)
    assert reply.status_code == 200, "one that comes while gateways have the old answer is served"
    answered = time.monotonic()
    assert leaving.wait(timeout=20) == 0
    assert time.monotonic() >= answered
    assert time.monotonic() - began >= 1


def test_an_engine_that_does_not_finish_is_not_waited_for_longer_than_it_may() -> None:
    left = run("pre_stop.py", "--announced-s=0", "--finish-s=1", "--url=http://127.0.0.1:9")
    assert left.returncode == 0


def test_a_pod_waits_for_its_model_until_it_is_there(tmp_path: Path) -> None:
    wanted = [
        {"model": "org/Big", "revision": None},
        {"model": "tiny", "revision": None, "folder": str(tmp_path / "tiny")},
    ]
    code = tmp_path / "app"
    for path in (*CODE.values(), *LOGS.values()):  # what the pod has of this repository, and no more
        (code / path).parent.mkdir(parents=True, exist_ok=True)
        (code / path).write_text((ROOT / path).read_text())
    environment = {"MODELS": json.dumps(wanted), "HF_HOME": str(tmp_path)}
    waiting = subprocess.Popen(
        [sys.executable, "-m", "manyeyes.engine.model_download", "--wait"],
        cwd=code,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert waiting.stdout
    assert "org/Big: waiting for the download" in waiting.stdout.readline()
    (tmp_path / "manyeyes").mkdir()
    (tmp_path / "manyeyes/org--Big@newest.complete").write_text("{}")
    assert "tiny: waiting for the download" in waiting.stdout.readline()
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny/config.json").write_text("{}")
    assert waiting.wait(timeout=20) == 0
    waiting.stdout.close()


def test_without_a_pre_stop_an_engine_still_finishes_before_it_is_told_to_stop(tmp_path: Path, port: int) -> None:
    """On Swarm, where run.sh is the first process."""
    flags = ["--host=127.0.0.1", f"--port={port}", "--served-model-name", "big", "--enable-server-load-tracking"]
    engine = [sys.executable, "-m", "manyeyes.emulator", *flags, "--start-seconds=0", "--ttft-ms=20", "--tpot-ms=20"]
    scripts = tmp_path / "scripts"
    scripts.mkdir()
    (scripts / "run.sh").write_text((POD / "run.sh").read_text())
    (scripts / "pre_stop.py").write_text(
        (POD / "pre_stop.py").read_text().replace("127.0.0.1:8000", f"127.0.0.1:{port}")
    )
    running = subprocess.Popen(["sh", scripts / "run.sh", "1", "30", *engine], cwd=ROOT, stdout=subprocess.DEVNULL)
    try:
        url = f"http://127.0.0.1:{port}"
        eventually(
            lambda: is_listening(port) and httpx.get(f"{url}/health", trust_env=False).status_code == 200, 30, 0.1
        )
        running.terminate()
        body = {"model": "big", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 100, "ignore_eos": True}
        reply = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=30, trust_env=False)
        assert reply.status_code == 200
        assert reply.json()["choices"][0]["finish_reason"] == "length"
        running.wait(timeout=20)
        eventually(lambda: not is_listening(port), 5, 0.1, "the engine is gone with its script")
    finally:
        running.kill()
        running.wait()


def test_a_marked_engine_is_asked_for_its_picture_only_once(engine: str, port: int, tmp_path: Path) -> None:
    mark = tmp_path / "warm"
    ask = ("startup_probe.py", "big", f"--url={engine}", "--timeout-s=5", f"--mark={mark}")
    eventually(lambda: run(*ask).returncode == 0, 30, 0.2, "it is warm")
    assert mark.exists()
    before = httpx.get(f"{engine}/metrics", trust_env=False).text.count("\n")
    assert (
        run("startup_probe.py", "no-such-model", f"--url={engine}", "--timeout-s=5", f"--mark={mark}").returncode == 0
    )
    assert httpx.get(f"{engine}/metrics", trust_env=False).text.count("\n") == before
