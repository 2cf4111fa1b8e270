"""`make loadtest` as its user has it: Locust's processes against the real gateway, and everything that can go wrong."""

import contextlib
import hashlib
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from loadtest.statistics import Sample, read_samples
from manyeyes.config.credentials import ApiKey, ApiKeys
from manyeyes.devcluster.cluster import ROOT, LocalCluster, local_cluster
from manyeyes.devcluster.eventually import eventually

KEY = "sk-load"
ALICE = ApiKey(name="alice", sha256=hashlib.sha256(KEY.encode()).hexdigest())


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    document = {
        "pools": [{"name": "big", "model": "org/Big-VL"}],
        "engines": [{"name": "gpu-0", "pool": "big"}, {"name": "gpu-1", "pool": "big"}],
    }
    with local_cluster(tmp_path_factory.mktemp("local_cluster"), document, keys=ApiKeys(keys=(ALICE,))) as running:
        running.all_up({"gpu-0", "gpu-1"})
        running.client.headers["Authorization"] = f"Bearer {KEY}"
        running.answers_from("big", {"gpu-0", "gpu-1"})
        yield running


def command(cluster: LocalCluster, out: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "loadtest", "--url", cluster.url, "--out", str(out), *arguments]


def environment(key: str = KEY) -> dict[str, str]:
    return {**os.environ, "MANYEYES_API_KEY": key}


def done(cluster: LocalCluster, out: Path, *arguments: str, key: str = KEY) -> subprocess.CompletedProcess[str]:
    """Runs it to its end. Each of `arguments` wins over an earlier one."""
    return subprocess.run(
        command(cluster, out, *arguments), env=environment(key), cwd=ROOT, capture_output=True, text=True, timeout=120
    )


def summary(out: Path) -> dict[str, Any]:
    return dict(json.loads((out / "summary.json").read_text()))


def samples(out: Path) -> list[Sample]:
    return list(read_samples(out / "requests.jsonl"))


def test_people_are_answered_by_all_engines_and_every_file_is_there(cluster: LocalCluster, tmp_path: Path) -> None:
    ended = done(cluster, tmp_path, "--users=8", "--duration=6s")
    assert ended.returncode == 0, ended.stdout
    found = summary(tmp_path)
    assert found["partial"] == ""
    assert set(found["figures"]["per_engine"]) == {"gpu-0", "gpu-1"}
    assert found["figures"]["failed"] == 0
    assert 0 < found["figures"]["first_p50_s"] < found["figures"]["total_p50_s"]
    assert all(one.tokens == 64 and one.prompt_tokens > 0 for one in samples(tmp_path))
    assert {"locust.html", "locust.json", "locust_stats.csv", "requests.jsonl"} <= {
        file.name for file in tmp_path.iterdir()
    }
    assert not [file for file in tmp_path.iterdir() if KEY.encode() in file.read_bytes()], "the key is in no file"
    locusts = json.loads((tmp_path / "locust.json").read_text())
    assert [row["name"] for row in locusts] == ["image"], "first tokens are not counted as requests"
    assert locusts[0]["num_requests"] == len(samples(tmp_path))


def test_two_processes_share_people_who_arrive_whether_or_not_others_were_answered(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    with socket.socket() as other_run:
        with contextlib.suppress(OSError):  # Locust's own port: another run on this machine may have it
            other_run.bind(("127.0.0.1", 5557))
            other_run.listen()
        ended = done(
            cluster, tmp_path, "--rate=10", "--duration=6s", "--processes=2", "--scenario=text:1,video:1,agent:1"
        )
    assert ended.returncode == 0, ended.stdout
    seen = samples(tmp_path)
    first_turns = [one for one in seen if one.turn == 0]
    assert 50 <= len(first_turns) <= 80, "ten a second for six seconds, and the second it takes to begin and end"
    assert len({one.user for one in first_turns}) == len(first_turns)
    assert {one.scenario for one in seen} == {"text", "video", "agent"}
    assert not [one.failed for one in seen if one.failed]
    processes = {json.loads(line)["process"] for line in (tmp_path / "generator.jsonl").read_text().splitlines()}
    assert len(processes) == 2


def test_the_same_seed_asks_the_same_questions(cluster: LocalCluster, tmp_path: Path) -> None:
    seen = []
    for name in ("a", "b"):
        assert done(cluster, tmp_path / name, "--users=2", "--duration=3s", "--scenario=text").returncode == 0
        seen.append({(one.user, one.turn, one.prompt_tokens) for one in samples(tmp_path / name) if one.turn == 0})
    assert seen[0] & seen[1] == min(seen, key=len)


def test_a_search_says_what_the_most_is(cluster: LocalCluster, tmp_path: Path) -> None:
    # Nine levels, each 1.5 times the one before: up to 51 a second, which two cores hold beside everything else.
    arguments = ("--rate=2", "--shape=saturate", "--duration=4s", "--slo=first=5,total=5")
    ended = done(cluster, tmp_path, *arguments)
    assert ended.returncode == 0, ended.stdout
    assert "highest load within the objective" in ended.stdout
    assert summary(tmp_path)["search"]["best"] >= 2


def test_an_objective_that_is_never_met_is_said_and_fails(cluster: LocalCluster, tmp_path: Path) -> None:
    ended = done(cluster, tmp_path, "--rate=4", "--shape=saturate", "--duration=2s", "--slo=total=0.01")
    assert ended.returncode == 1, ended.stdout
    assert "no level met the objective" in ended.stdout
    assert summary(tmp_path)["search"]["best"] == 0


def test_a_gate_that_was_missed_fails(cluster: LocalCluster, tmp_path: Path) -> None:
    ended = done(cluster, tmp_path, "--users=2", "--duration=3s", "--slo=total=0.01")
    assert ended.returncode == 1
    assert "the objective was missed" in ended.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--users=1",), "refuses the key (401"),
        (("--users=0",), "USERS=0: expected"),
        (("--users=1.5",), "a whole number of users"),
        (("--rate=-1",), "RATE=-1: expected"),
        ((), "set USERS= or RATE="),
        (("--users=1", "--rate=1"), "not both"),
        (("--users=1", "--scenario=film"), "unknown scenario 'film'"),
        (("--users=1", "--shape=cube"), "unknown shape 'cube'"),
        (("--users=1", "--duration=soon"), "duration: expected"),
        (("--users=1", "--url=http://127.0.0.1:9"), "does not answer: [Errno 111]"),
        (("--users=1", "--url=gateway"), "URL: expected http://"),
        (("--users=1", "--model=huge"), "has no model 'huge'; it has big"),
        (("--users=1", "--out=/proc/nowhere"), "Nothing was measured"),
    ],
)
def test_bad_input_is_one_line_and_ends_with_two(
    cluster: LocalCluster, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    key = "sk-wrong" if "the key" in said else KEY
    ended = done(cluster, tmp_path, *arguments, key=key)
    assert ended.returncode == 2
    assert said in ended.stdout
    assert key not in ended.stdout
    assert len(ended.stdout.strip().splitlines()) == 1
    assert not ended.stderr


def test_a_full_disk_keeps_what_there_is_and_is_said(cluster: LocalCluster, tmp_path: Path) -> None:
    """No file may grow beyond 16 KiB, Locust's own report among them: what a full disk does, without filling one."""
    words = shlex.join(command(cluster, tmp_path, "--users=8", "--duration=60s"))
    ended = subprocess.run(
        ["bash", "-c", f"ulimit -f 16; exec {words}"],
        env=environment(),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 1, ended.stdout
    assert "partial:" in ended.stdout
    assert "requests.jsonl: File too large" in ended.stdout
    assert not ended.stderr
    assert 20 < len(samples(tmp_path)) < 100
    assert "File too large" in summary(tmp_path)["partial"]


def test_ctrl_c_keeps_what_was_measured(cluster: LocalCluster, tmp_path: Path) -> None:
    running = subprocess.Popen(
        command(cluster, tmp_path, "--users=4", "--duration=10m"),
        env=environment(),
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
    )
    eventually(lambda: len(samples(tmp_path)) > 5, 30, 0.2, "people are answered")
    running.send_signal(signal.SIGINT)
    said, _ = running.communicate(timeout=60)
    assert running.returncode == 130, said
    assert "partial: interrupted by Ctrl-C" in said
    found = summary(tmp_path)
    assert found["partial"] == "interrupted by Ctrl-C"
    assert found["figures"]["answered"] > 0
    assert (tmp_path / "locust.html").exists()


def test_an_engine_that_dies_makes_the_run_partial(tmp_path: Path) -> None:
    document = {
        "pools": [{"name": "big", "model": "org/Big-VL"}],
        "engines": [{"name": "gpu-0", "pool": "big"}, {"name": "gpu-1", "pool": "big"}],
    }
    folder = tmp_path / "local_cluster"
    folder.mkdir()
    with local_cluster(folder, document) as running:
        running.all_up({"gpu-0", "gpu-1"})
        running.answers_from("big", {"gpu-0", "gpu-1"})
        out = tmp_path / "out"
        asked = subprocess.Popen(
            command(running, out, "--users=6", "--duration=14s"),
            env=environment(""),
            cwd=ROOT,
            text=True,
            stdout=subprocess.PIPE,
        )
        eventually(lambda: len(samples(out)) > 5, 30, 0.2, "people are answered")
        running.kill("gpu-1")
        said, _ = asked.communicate(timeout=90)
    assert asked.returncode == 1, said
    assert "partial: gpu-1 was lost during the run" in said
    assert summary(out)["figures"]["answered"] > 0


def test_two_runs_are_compared_and_noise_is_called_noise(cluster: LocalCluster, tmp_path: Path) -> None:
    for name, users in (("a", 4), ("b", 4), ("c", 12)):
        assert done(cluster, tmp_path / name, f"--users={users}", "--duration=8s").returncode == 0

    def compared(one: str, other: str) -> str:
        words = [sys.executable, "-m", "loadtest.compare", str(tmp_path / one), str(tmp_path / other)]
        return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60).stdout

    same = next(line for line in compared("a", "b").splitlines() if "requests a second" in line)
    assert same.endswith("noise")
    more = next(line for line in compared("a", "c").splitlines() if "requests a second" in line)
    assert more.endswith("better")


def test_what_is_no_run_cannot_be_compared(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "loadtest.compare", str(tmp_path), str(tmp_path)]
    ended = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 2
    assert "is not a run" in ended.stdout
