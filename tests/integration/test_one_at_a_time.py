"""manyeyes/engine/pod/one_at_a_time.py: engines of one GPU start one after the other, whoever starts them."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from manyeyes.devcluster.cluster import ROOT
from manyeyes.devcluster.eventually import eventually
from manyeyes.devcluster.ports import free_port

SCRIPT = ROOT / "manyeyes/engine/pod/one_at_a_time.py"
ENGINE = """
import http.server, sys, time, pathlib
name, port, folder = sys.argv[1], int(sys.argv[2]), pathlib.Path(sys.argv[3])
(folder / f"{name}.began").touch()
while not (folder / f"{name}.loaded").exists():
    time.sleep(0.02)
class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", port), Health).serve_forever()
"""
Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    processes: list[subprocess.Popen[bytes]] = []

    def begin(name: str, *gpus: str) -> subprocess.Popen[bytes]:
        port = free_port()
        locks = [str(tmp_path / "starting" / f"{gpu}.lock") for gpu in gpus]
        command = [sys.executable, "-I", str(SCRIPT), *locks, "--"]
        with (tmp_path / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                [*command, sys.executable, "-I", "-c", ENGINE, name, str(port), str(tmp_path)],
                env={**os.environ, "MANYEYES_HEALTH": f"http://127.0.0.1:{port}/health"},
                stdout=log,
            )
        processes.append(process)
        return process

    yield begin
    for process in processes:
        process.kill()
        process.wait()


def began(folder: Path, name: str) -> bool:
    return (folder / f"{name}.began").exists()


def waits(folder: Path, name: str) -> bool:
    return b"waiting for" in (folder / f"{name}.log").read_bytes()


def test_the_second_engine_of_a_gpu_begins_when_the_first_one_is_healthy(tmp_path: Path, start: Start) -> None:
    start("a", "0")
    eventually(lambda: began(tmp_path, "a"), 30, 0.02, "a began")
    start("b", "0")
    eventually(lambda: waits(tmp_path, "b"), 30, 0.02, "b waits")
    assert not began(tmp_path, "b")
    (tmp_path / "a.loaded").touch()
    eventually(lambda: began(tmp_path, "b"), 30, 0.02, "b began")


def test_an_engine_that_ends_before_it_is_healthy_lets_the_next_one_begin(tmp_path: Path, start: Start) -> None:
    first = start("a", "0")
    eventually(lambda: began(tmp_path, "a"), 30, 0.02, "a began")
    start("b", "0")
    eventually(lambda: waits(tmp_path, "b"), 30, 0.02, "b waits")
    first.kill()
    first.wait()
    eventually(lambda: began(tmp_path, "b"), 30, 0.02, "b began")


def test_engines_of_different_gpus_do_not_wait_and_one_of_both_waits_for_either(tmp_path: Path, start: Start) -> None:
    start("a", "0")
    start("b", "1")
    eventually(lambda: began(tmp_path, "a") and began(tmp_path, "b"), 30, 0.02, "both began")
    start("c", "1", "0")
    eventually(lambda: waits(tmp_path, "c"), 30, 0.02, "c waits")
    (tmp_path / "a.loaded").touch()
    (tmp_path / "b.loaded").touch()
    eventually(lambda: began(tmp_path, "c"), 30, 0.02, "c began")


def test_an_engine_that_waits_ends_on_sigterm(tmp_path: Path, start: Start) -> None:
    start("a", "0")
    eventually(lambda: began(tmp_path, "a"), 30, 0.02, "a began")
    second = start("b", "0")
    eventually(lambda: waits(tmp_path, "b"), 30, 0.02, "b waits")
    second.terminate()
    second.wait(timeout=10)
    assert not began(tmp_path, "b")


def test_the_engine_takes_the_place_of_the_script_so_that_signals_reach_it(tmp_path: Path, start: Start) -> None:
    process = start("a", "0")
    eventually(lambda: began(tmp_path, "a"), 30, 0.02, "a began")
    assert ENGINE.strip().encode() in Path(f"/proc/{process.pid}/cmdline").read_bytes()
