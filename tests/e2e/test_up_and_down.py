"""`make up` and `make down` as a user types them: what they print, what they leave, what Ctrl-C does."""

import os
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from manyeyes.devcluster.eventually import eventually
from tests.e2e.host import ROOT, Host

PORT = 18090
CONFIG = f"""
name: manyeyes-up
flavour: emulated
emulated_engines: 2
pools:
  - {{name: big, model: org/Big-VL}}
gateway: {{host: 127.0.0.1, port: {PORT}}}
monitoring: {{enabled: false}}
network: {{subnet: 10.213.79.0/24, controller_ip: 10.213.79.2}}
"""


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    here = Host.in_folder(tmp_path, CONFIG)
    yield here
    here.make("clean")  # the state volume too: it remembers keys that were in force


def left() -> list[str]:
    """Containers and networks of this test's project."""
    found = []
    for kind in (["ps", "-a"], ["network", "ls"]):
        command = ["docker", *kind, "--filter", "label=com.docker.compose.project=manyeyes-up", "--format", "{{.ID}}"]
        found += subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return found


def test_up_ends_with_an_address_that_answers_and_down_leaves_nothing(host: Host) -> None:
    status, said = host.make("up")
    assert status == 0, said
    assert f"http://localhost:{PORT}/v1" in said
    assert "emulated" in said
    assert max(len(line) for line in said.splitlines()) < 200
    body = {"model": "big", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 3}
    reply = httpx.post(f"http://localhost:{PORT}/v1/chat/completions", json=body, timeout=10)
    assert reply.status_code == 200
    eventually(lambda: "<html" in httpx.get(f"http://localhost:{PORT}/", timeout=10).text, 60, what="the page")
    assert "MANYEYES_PROJECT=manyeyes-up" in host.env.read_text()
    again, said = host.make("up")
    assert again == 0, said
    status, said = host.make("down")
    assert status == 0, said
    assert left() == []
    assert not host.env.exists()


def test_a_changed_configuration_is_in_force_after_the_next_up(host: Host) -> None:
    status, said = host.make("up")
    assert status == 0, said
    host.config.write_text(CONFIG.replace("model: org/Big-VL", "model: org/Big-VL, aliases: [new-name]"))
    status, said = host.make("up")
    assert status == 0, said
    body = {"model": "new-name", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 3}
    url = f"http://localhost:{PORT}"
    eventually(lambda: httpx.post(f"{url}/v1/chat/completions", json=body, timeout=10).status_code == 200, 30)


def test_a_change_is_in_force_within_seconds_and_a_wrong_one_is_told_by_the_next_up(host: Host) -> None:
    status, said = host.make("up")
    assert status == 0, said
    url = f"http://localhost:{PORT}/v1/chat/completions"
    body = {"model": "new-name", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 3}
    assert httpx.post(url, json=body, timeout=10).status_code == 404
    changed = CONFIG.replace("model: org/Big-VL", "model: org/Big-VL, aliases: [new-name]")
    host.config.write_text(changed)
    eventually(lambda: httpx.post(url, json=body, timeout=10).status_code == 200, 30, what="the new name is answered")
    host.config.write_text(changed + "gatway: {}\n")
    status, said = host.make("up")
    assert status == 2
    assert "gatway is not a setting" in said
    assert httpx.post(url, json=body, timeout=10).status_code == 200
    host.config.write_text(changed)
    status, said = host.make("restart-rolling")
    assert status == 0, said
    assert "emu-1 (2 of 2) is back" in said
    assert httpx.post(url, json=body, timeout=10).json()["model"] == "new-name"
    status, said = host.manyeyes("drain", "emu-0")
    assert (status, "emu-0 gets no new requests" in said) == (0, True), said

    def answering() -> set[str]:
        return {httpx.post(url, json=body, timeout=10).headers["X-ManyEyes-Engine"] for _ in range(8)}

    eventually(lambda: answering() == {"emu-1"}, 20, what="the drained engine gets nothing")
    status, said = host.manyeyes("resume", "emu-0")
    assert status == 0, said
    eventually(lambda: answering() == {"emu-0", "emu-1"}, 20, what="the resumed engine answers")
    status, said = host.manyeyes("drain", "emu-9")
    assert (status, "emu-9" in said) == (2, True), said


def test_https_and_keys_come_with_the_next_up_and_a_further_key_by_itself(host: Host) -> None:
    host.config.write_text(CONFIG.replace(f"port: {PORT}", f"port: {PORT}, tls: {{}}"))

    def key(name: str) -> str:
        command: list[str | Path] = [sys.executable, "-m", "manyeyes.cli", "key", "--config", host.config, name]
        return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()

    def asked(secret: str) -> int:
        trusted = ssl.create_default_context(cafile=host.secrets / "tls.crt")
        body = {"model": "big", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 3}
        url, headers = f"https://localhost:{PORT}/v1/chat/completions", {"Authorization": f"Bearer {secret}"}
        return httpx.post(url, json=body, headers=headers, verify=trusted, timeout=10).status_code

    def gateway() -> str:
        command = ["docker", "ps", "--quiet", "--filter", "name=manyeyes-up-gateway"]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    alice = key("alice")
    status, said = host.make("up")
    assert status == 0, said
    assert "is new and self-signed" in said
    assert f"--cacert {host.secrets}/tls.crt https://localhost:{PORT}/v1" in said
    assert "keys: alice" in said
    assert (asked(alice), asked("another")) == (200, 401)
    before, bob = gateway(), key("bob")
    eventually(lambda: asked(bob) == 200, 30, what="the new key works")
    status, said = host.make("up")
    assert status == 0, said
    assert (asked(alice), asked(bob)) == (200, 200)
    assert gateway() == before
    assert "self-signed" not in said


def test_a_broken_keys_file_is_told_and_nothing_is_started(host: Host) -> None:
    host.config.with_name("api-keys.yaml").write_text("keys: [{name: alice}, {name: bob, sha256: x}]\n")
    status, said = host.make("up")
    assert status == 2
    assert f"{host.config.parent}/api-keys.yaml: keys[alice].sha256 is missing" in said
    assert f"{host.config.parent}/api-keys.yaml: keys[bob].sha256: expected 64 hexadecimal digits" in said
    assert left() == []


def test_ctrl_c_leaves_no_container_and_no_network(host: Host) -> None:
    process = host.start("make", "up", f"CONFIG={host.config}")
    eventually(lambda: left(), 120, 0.05, "the first container or network")
    os.killpg(process.pid, signal.SIGINT)
    said, _ = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "interrupted" in said
    assert "Traceback" not in said
    assert left() == []


def test_a_port_in_use_is_one_line_and_nothing_is_started(host: Host) -> None:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", PORT))
        taken.listen()
        status, said = host.make("up")
    assert status == 2
    assert f"port {PORT}: needed free, found taken" in said
    assert "gateway.port" in said
    assert "Traceback" not in said
    assert left() == []


@pytest.mark.parametrize(
    ("change", "more", "said"),
    [
        ("pools: [{name: a, model: m, fallback: z}]", [], "pools[a].fallback: expected the name of a pool, got 'z'; the pools are a"),
        ("pools: [{name: a, model: m}]\nengines: [{name: e, pool: a, gpus: [0]}]", [], "requires an NVIDIA GPU, but nvidia-smi shows none"),
        ("pools: [{name: a, model: m}]", ["FLAVOUR=cuda"], "Try FLAVOUR=cpu or FLAVOUR=emulated|or try FLAVOUR=cpu or FLAVOUR=emulated"),
        ("pools: [{name: a, model: m}]", ["FLAVOUR=gpu"], "'gpu' is not one of 'cuda'"),
        ("pools: [{name: a, model: /no/model, flavours: [cpu]}]\nengines: [{name: e, pool: a, flavour: cpu}]", [], "needed /no/model, found missing"),
    ],
)  # fmt: skip
def test_a_wrong_configuration_is_one_line_and_nothing_is_started(
    change: str, more: list[str], said: str, tmp_path: Path
) -> None:
    text = f"name: manyeyes-up\ngateway: {{port: {PORT}}}\nmonitoring: {{enabled: false}}\n{change}\n"
    status, output = Host.in_folder(tmp_path, text).make("up", *more)
    assert status == 2, output
    assert any(one in output for one in said.split("|")), output
    assert "Traceback" not in output
    assert left() == []


def test_a_configuration_that_containers_cannot_read_is_told_with_the_remedy(host: Host) -> None:
    host.config.chmod(0o600)
    status, said = host.make("up")
    assert status == 2
    assert f"chmod -R a+rX {host.config.parent}" in said
    assert left() == []


def test_doctor_prints_needed_and_found_and_changes_nothing(host: Host) -> None:
    before = (left(), sorted(path.name for path in ROOT.iterdir()))
    status, said = host.make("doctor")
    assert status == 0, said
    assert "needed" in said
    assert f"port {PORT}" in said
    assert (left(), sorted(path.name for path in ROOT.iterdir())) == before
