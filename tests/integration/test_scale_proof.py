"""`manyeyes scaling-report` as its user has it, with everything small: that it measures, goes on where it stopped, and judges.
What its figures are is in docs/benchmarks/scale-proof.md, and no test's business on a shared machine."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from loadtest.scaling_report import results
from manyeyes.devcluster.cluster import ROOT, local_cluster
from manyeyes.devcluster.eventually import eventually

SMALL = ("--quick", "--speed=4", "--repeats=1", "--counts=1,2", "--users-per-engine=6", "--slo=first=20,total=20")


def command(out: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "loadtest.scaling_report", "--out", str(out), *arguments]


def done(out: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(out, *arguments), cwd=ROOT, capture_output=True, text=True, timeout=180)


def test_ctrl_c_keeps_what_was_measured_and_says_how_to_go_on(tmp_path: Path) -> None:
    words = command(tmp_path, *SMALL, "--phases=full,same")
    running = subprocess.Popen(words, cwd=ROOT, text=True, stdout=subprocess.PIPE, start_new_session=True)
    eventually(lambda: results.read_good_results(tmp_path / "runs.jsonl"), 90, 0.2, "a first phase is done")
    running.send_signal(signal.SIGINT)
    said, _ = running.communicate(timeout=60)
    assert running.returncode == 130, said
    assert "partial: interrupted by Ctrl-C" in said
    assert f"Continue with: manyeyes scaling-report --counts 1,2 --out {tmp_path}" in said
    assert "Partial: interrupted by Ctrl-C" in (tmp_path / "proof.md").read_text()
    assert not left_behind(tmp_path), "no engine, nginx or controller is left"


def left_behind(folder: Path) -> list[str]:
    """Processes that were started with a path of this folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(folder) in line and str(os.getpid()) != entry.parent.name:
            found.append(line)
    return found


def test_wrong_words_are_one_line(tmp_path: Path) -> None:
    for arguments, said in (
        (("--phases=all",), "unknown phase 'all'"),
        (("--speed=0",), "--speed: expected a number above 0"),
        (("--repeats=0",), "expected 1 or more"),
        (("--users-per-engine=0",), "--users-per-engine: expected 1 or more, got 0"),
        (("--profile=rtx9090",), "unknown profile 'rtx9090'"),
        (("--scenario=film",), "unknown scenario 'film'"),
        (("--slo=p95",), "SLO: expected"),
        (("--on=compose", "--url=http://127.0.0.1:9"), "does not answer"),
    ):
        ended = done(tmp_path / "x", *arguments)
        assert (ended.returncode, said in ended.stdout) == (2, True), ended.stdout
        assert len(ended.stdout.strip().splitlines()) == 1
    assert done(tmp_path / "x", "--counts=0,1").returncode == 2


def test_a_command_that_cannot_scale_ends_the_proof_with_its_last_line(tmp_path: Path) -> None:
    document = {"pools": [{"name": "big", "model": "org/Big-VL"}], "engines": [{"name": "gpu-0", "pool": "big"}]}
    folder = tmp_path / "local_cluster"
    folder.mkdir()
    scale = tmp_path / "scale"
    scale.write_text("#!/bin/bash\necho there is no second GPU\nexit 3\n")
    scale.chmod(0o755)
    with local_cluster(folder, document) as running:
        running.all_up({"gpu-0"})
        told = done(tmp_path / "out", "--on=compose", f"--url={running.url}", f"--scale={scale} {{count}}", *SMALL)
    assert told.returncode == 2
    assert "exited with code 3: there is no second GPU" in told.stdout
