"""Documents that outlive the controller."""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from manyeyes.controller.state_store import StateStore
from manyeyes.devcluster.eventually import eventually

ROOT = Path(__file__).resolve().parents[2]


def test_a_document_is_read_as_it_was_written(tmp_path: Path) -> None:
    kept = StateStore(tmp_path / "state")
    assert kept.read("engines/gpu-9") is None
    assert kept.write("engines/gpu-9", {"name": "gpu-9", "weight": 2})
    assert kept.read("engines/gpu-9") == {"name": "gpu-9", "weight": 2}
    assert kept.names("engines") == ["engines/gpu-9"]
    assert kept.remove("engines/gpu-9")
    assert kept.remove("engines/gpu-9")
    assert kept.read("engines/gpu-9") is None


def test_a_disk_that_refuses_costs_the_memory_and_not_the_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    kept = StateStore(tmp_path / "file")
    assert kept.write("held", {"a": 1}) is False
    full = StateStore(tmp_path)

    def refuse(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", refuse)
    assert full.write("held", {"a": 1}) is False
    assert full.read("held") is None
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_killed_at_any_instant_it_leaves_the_old_document_or_the_new_one(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from manyeyes.controller.state_store import StateStore\n"
        "kept = StateStore(Path(sys.argv[1]))\n"
        "for n in range(10**9): kept.write('held', {'first': n, 'rows': ['x' * 50] * 200, 'last': n})\n"
    )
    for round_ in range(8):
        process = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], cwd=ROOT)
        eventually(lambda: (tmp_path / "held.yaml").exists(), 20)
        time.sleep(0.01 * round_)
        process.send_signal(signal.SIGKILL)
        process.wait()
        document = yaml.safe_load((tmp_path / "held.yaml").read_text())
        assert document["first"] == document["last"]
        assert len(document["rows"]) == 200
