"""The controller as a process: what it tells over HTTP, and that a wrong configuration ends it with a sentence."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import httpx

from manyeyes.devcluster.cluster import ROOT, LocalCluster, local_cluster
from manyeyes.devcluster.eventually import eventually
from tests.integration.documents import document
from tests.integration.membership import controller, sentences, states

BIG = document({"big": ["big-0", "late-1"]})


def test_it_tells_life_readiness_targets_metrics_and_events(tmp_path: Path) -> None:
    with local_cluster(tmp_path, BIG) as running:
        eventually(lambda: running.healthz()["controller"] == "ok", 15)
        eventually(lambda: controller(running, "/ready").status_code == 200, 15)
        assert controller(running, "/live").json() == {"status": "ok"}
        targets = controller(running, "/sd").json()
        # A dead engine is a target too: it shows as up=0.
        labels = {"pool": "big", "flavour": "emulated"}
        assert [target["labels"] for target in targets] == [labels | {"engine": name} for name in ("big-0", "late-1")]
        assert targets[0]["targets"] == [f"127.0.0.1:{running.ports['big-0']}"]
        up = 'manyeyes_engine_state{engine="big-0",flavour="emulated",pool="big",state="up"} 1.0'
        eventually(lambda: up in controller(running, "/metrics").text, 15)
        assert states(running) == {"big-0": "up", "late-1": "starting"}
        assert "big-0 is up: its warm-up request succeeded" in sentences(running)


def test_before_every_engine_was_seen_it_is_not_ready(tmp_path: Path) -> None:
    impatient = {"probe_interval_s": 0.5, "probe_timeout_s": 30, "fall": 5}
    with local_cluster(tmp_path, BIG | {"controller": impatient}) as running:
        # An engine that neither answers nor refuses leaves the question open.
        running.start("late-1", [sys.executable, "-c", _SILENT, str(running.ports["late-1"])])
        eventually(lambda: "listening" in running.log("late-1"), 10)
        running.kill("controller")
        shutil.rmtree(running.folder / "state", ignore_errors=True)  # what it remembers is an answer too
        running.start_controller()
        eventually(lambda: _status(running, "/live") == 200, 15)
        assert _status(running, "/ready") == 503
        assert controller(running, "/ready").json()["unsettled"][-1] == "late-1"


_SILENT = """
import socket, sys
server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
print("listening", flush=True)
kept = [server.accept() for _ in iter(int, 1)]
"""


def _status(running: LocalCluster, path: str) -> int:
    try:
        return controller(running, path).status_code
    except httpx.TransportError:
        return 0


def test_sigterm_ends_it_in_time(tmp_path: Path) -> None:
    with local_cluster(tmp_path, BIG) as running:
        eventually(lambda: _status(running, "/live") == 200, 15)
        process = running.processes["controller"]
        running.kill("controller", signal.SIGTERM)
        assert process.returncode == 0
        assert "Traceback" not in running.log("controller")


def test_a_wrong_configuration_ends_it_with_2_and_every_problem(tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text("pools: [{name: a, model: m, fallback: z}]\ngateway: {port: 9090}\n")
    ended = subprocess.run(
        [sys.executable, "-m", "manyeyes.controller"], cwd=ROOT, capture_output=True, text=True, timeout=30,
        env={**os.environ, "MANYEYES_CONFIG": str(file)},
    )  # fmt: skip
    assert ended.returncode == 2
    assert len(ended.stderr.splitlines()) == 2
    assert "Traceback" not in ended.stderr
