"""The host's clock is set forward, and back, while people ask: nobody notices, and no engine is taken out for it."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from manyeyes.devcluster.cluster import ROOT, LocalCluster, local_cluster, nginx_binary
from tests.integration.documents import document

ENGINES = {"big-0", "big-1"}


def library() -> str:
    fetched = subprocess.run([ROOT / "tests/faketime/fetch", ROOT / "build/faketime"], capture_output=True, text=True)
    return fetched.stdout.strip() if fetched.returncode == 0 else ""


class Clock:
    """What every process of the cluster takes for the time of day. Monotonic time goes on, as when a real clock is set."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.set("+0")

    def set(self, offset: str) -> None:
        fresh = self._file.with_suffix(".new")
        fresh.write_text(f"{offset}\n")
        fresh.replace(self._file)


@pytest.fixture
def clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Clock:
    preload = library()
    if not preload:
        pytest.skip("libfaketime cannot be had from Debian's packages here")
    nginx_binary()  # its own fetching keeps the real clock
    made = Clock(tmp_path / "clock")
    monkeypatch.setenv("LD_PRELOAD", preload)
    monkeypatch.setenv("FAKETIME_TIMESTAMP_FILE", str(tmp_path / "clock"))
    monkeypatch.setenv("FAKETIME_NO_CACHE", "1")
    monkeypatch.setenv("DONT_FAKE_MONOTONIC", "1")
    return made


@pytest.fixture
def cluster(clock: Clock, tmp_path: Path) -> Iterator[LocalCluster]:
    (tmp_path / "local_cluster").mkdir()
    with local_cluster(tmp_path / "local_cluster", document({"big": sorted(ENGINES)})) as running:
        running.answers_from("big", ENGINES)
        yield running


def states(cluster: LocalCluster) -> set[str]:
    return {one["state"] for pool in cluster.healthz()["pools"] for one in pool["engines"]}


def test_an_engine_that_dies_after_a_jump_is_taken_out_and_let_in_as_ever(cluster: LocalCluster, clock: Clock) -> None:
    clock.set("-86400")
    cluster.kill("big-0")
    cluster.all_down({"big-0"}, 10)
    assert cluster.ask("big").status_code == 200
    clock.set("+86400")
    cluster.start_engine("big-0")
    cluster.all_up({"big-0"}, 20)
