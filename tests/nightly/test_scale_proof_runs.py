"""`manyeyes scaling-report` from its first measurement to its verdict. What one phase comes to, and wrong words: tests/integration."""

import threading
import time
from pathlib import Path

import orjson

from loadtest.scaling_report import results
from manyeyes.devcluster.cluster import local_cluster
from tests.integration.test_scale_proof import SMALL, done


def test_one_and_two_engines_are_measured_judged_and_shown_and_nothing_is_measured_twice(tmp_path: Path) -> None:
    ended = done(tmp_path, *SMALL)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    lines = results.read_good_results(tmp_path / "runs.jsonl")
    assert {(one.visit.count, one.phase) for one in lines} == {
        *((1, phase) for phase in ("full", "limit", "video")),
        *((2, phase) for phase in ("full", "same", "limit", "video")),
    }
    assert all(one.figures.rps > 0 for one in lines if one.phase != "limit")
    both = next(one for one in lines if one.visit.count == 2 and one.phase == "full")
    assert set(both.figures.per_engine) == {"gpu-0", "gpu-1"}
    assert "emulated" in (tmp_path / "proof.html").read_text()
    assert (tmp_path / "1-engines/repeat-1/full/requests.jsonl").exists(), "raw files are kept"

    again = done(tmp_path, *SMALL, "--min-efficiency=1.9")
    assert again.returncode == 1
    assert "0 visits to do" in again.stdout
    assert "expected at least 1.9" in again.stdout
    assert len(results.read_good_results(tmp_path / "runs.jsonl")) == len(lines)

    other = done(tmp_path, *SMALL, "--scenario=text")
    assert other.returncode == 2
    assert "was made with other settings (work)" in other.stdout


def test_a_running_cluster_is_brought_to_each_number_by_a_command(tmp_path: Path) -> None:
    """The command stands for `make scale`: it asks, and this test starts and stops the second engine."""
    document = {
        "pools": [{"name": "big", "model": "org/Big-VL"}],
        "engines": [{"name": "gpu-0", "pool": "big"}, {"name": "late-1", "pool": "big"}],
    }
    folder, wanted, reached = tmp_path / "local_cluster", tmp_path / "wanted", tmp_path / "reached"
    folder.mkdir()
    scale = tmp_path / "scale"
    scale.write_text(
        f'#!/bin/bash\necho "$1" > {wanted}\nwhile [ "$(cat {reached} 2>/dev/null)" != "$1" ]; do sleep 0.1; done\n'
    )
    scale.chmod(0o755)
    ended = threading.Event()
    with local_cluster(folder, document) as running:
        running.all_up({"gpu-0"})

        def obey() -> None:
            while not ended.is_set():
                count = wanted.read_text().strip() if wanted.exists() else ""
                if count == "2" and "late-1" not in running.processes:
                    running.start_engine("late-1")
                if count == "1" and "late-1" in running.processes:
                    running.kill("late-1")
                reached.write_text(count)
                time.sleep(0.1)

        thread = threading.Thread(target=obey)
        thread.start()
        wanted.write_text("2")
        running.all_up({"gpu-0", "late-1"})
        out = tmp_path / "out"
        try:
            arguments = (
                "--on=compose",
                f"--url={running.url}",
                "--emulated",
                f"--scale={scale} {{count}}",
                "--phases=full",
            )
            told = done(out, *arguments, *SMALL)
        finally:
            ended.set()
            thread.join(timeout=20)
    assert told.returncode == 0, told.stdout + told.stderr
    lines = results.read_good_results(out / "runs.jsonl")
    assert {one.visit.count: set(one.figures.per_engine) for one in lines} == {1: {"gpu-0"}, 2: {"gpu-0", "late-1"}}
    assert wanted.read_text().strip() == "2", "it was brought back to as many as there were"
    assert orjson.loads((out / "about.json").read_bytes())["kind"]["emulated"] is True
