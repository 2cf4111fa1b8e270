"""A running cluster struck, saved and brought back, as an operator does it: manyeyes chaos, manyeyes backup, manyeyes restore."""

import json
import os
import signal
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from manyeyes.cli.volume_copies import Volumes
from manyeyes.config.gateway import Images
from manyeyes.devcluster.eventually import eventually
from tests.e2e.host import Host

NAME, PORT = "manyeyes-chaos", 18093
CONFIG = f"""
name: {NAME}
flavour: emulated
emulated_engines: 2
pools:
  - {{name: big, model: org/Big-VL}}
gateway: {{host: 127.0.0.1, port: {PORT}}}
monitoring: {{enabled: false}}
network: {{subnet: 10.213.82.0/24, controller_ip: 10.213.82.2}}
"""


def engines_up() -> set[str]:
    pools = httpx.get(f"http://127.0.0.1:{PORT}/healthz", timeout=5).json()["pools"]
    return {one["name"] for pool in pools for one in pool["engines"] if one["state"] == "up"}


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    here = Host.in_folder(tmp_path_factory.mktemp("chaos"), CONFIG)
    status, said = here.manyeyes("up")
    try:
        assert status == 0, said
        yield here
    finally:
        here.manyeyes("clean")


def test_a_killed_engine_comes_back_by_itself_and_the_report_says_what_it_cost(host: Host, tmp_path: Path) -> None:
    status, said = host.manyeyes("chaos", "--faults=kill-emu-0", "--users=6", f"--out={tmp_path}", "--watch=2")
    assert status == 0, said
    one = json.loads((tmp_path / "chaos.json").read_text())["outcomes"][0]
    assert (one["failed"], one["twice"], one["broken"], one["notes"]) == (0, 0, "", [])
    assert one["answered"] > 5
    assert "emu-0: kill -9" in (tmp_path / "chaos.md").read_text()
    assert "<svg" in (tmp_path / "chaos.html").read_text()


def test_ctrl_c_in_the_middle_of_a_fault_leaves_the_cluster_as_it_was(host: Host, tmp_path: Path) -> None:
    process = host.start_manyeyes("chaos", "--faults=hang-emu-0", "--users=2", f"--out={tmp_path}", "--watch=1")

    def state() -> str:
        command = ["docker", "inspect", "--format", "{{.State.Status}}", f"{NAME}-emu-0-1"]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    eventually(lambda: state() == "paused", 30, 0.1, "the engine hangs")
    os.killpg(process.pid, signal.SIGINT)
    said, _ = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "interrupted" in said
    assert "Traceback" not in said
    assert state() == "running"
    eventually(lambda: engines_up() == {"emu-0", "emu-1"}, 30)


def test_what_was_registered_and_every_secret_is_in_a_backup_and_comes_back(host: Host, tmp_path: Path) -> None:
    host.env.write_text("GRAFANA_PASSWORD=mine\n" + host.env.read_text())
    key = (host.secrets / "admin.key").read_text().strip()
    engine = {"name": "far", "pool": "big", "address": "10.213.82.77:8000"}
    reply = httpx.post(
        f"http://127.0.0.1:{PORT}/api/engines", json=engine, headers={"Authorization": f"Bearer {key}"}, timeout=10
    )
    assert reply.status_code < 300, reply.text
    archive = tmp_path / "one.tar.gz"
    status, said = host.manyeyes("backup", f"--out={archive}")
    assert status == 0, said
    assert stat.S_IMODE(archive.stat().st_mode) == 0o600

    status, said = host.manyeyes("restore", str(archive))
    assert (status, "is running, and nothing was changed. Run `.venv/bin/manyeyes down" in said) == (2, True), said
    bad = tmp_path / "bad.tar.gz"
    bad.write_bytes(archive.read_bytes()[:-100])
    status, said = host.manyeyes("restore", str(bad))
    assert (status, "cannot be restored" in said, "Nothing was changed" in said) == (2, True, True), said

    assert host.manyeyes("clean")[0] == 0
    (host.secrets / "admin.key").write_text("another\n")
    host.config.write_text(CONFIG.replace("big", "other"))
    status, said = host.manyeyes("restore", str(archive))
    assert status == 0, said
    assert (host.secrets / "admin.key").read_text().strip() == key
    assert stat.S_IMODE((host.secrets / "admin.key").stat().st_mode) == 0o640
    assert host.config.read_text() == CONFIG
    assert "GRAFANA_PASSWORD=mine" in host.env.read_text()
    assert any("other" in path.read_text() for path in host.config.parent.glob("cluster.yaml.before-*"))
    Volumes(NAME, Images().controller).save("state", tmp_path / "state.tar")
    assert "far" in subprocess.run(
        ["tar", "-tf", tmp_path / "state.tar"], check=True, capture_output=True, text=True
    ).stdout  # fmt: skip
