"""Engines that answer nonsense: bounded in time and memory, and suspect; users' requests go on."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from manyeyes.devcluster.cluster import LocalCluster, local_cluster
from manyeyes.devcluster.eventually import eventually
from manyeyes.devcluster.ports import free_port
from tests.integration.documents import document
from tests.integration.membership import engines, rotation, sentences, states
from tests.integration.raw_tcp_engine import RawEngine, http, raw_engine, well

QUICK = {"load_interval_s": 0.5, "probe_interval_s": 0.25, "probe_timeout_s": 2}
BESIDE_A_GOOD_ONE = document({"big": ["big-0", "late-1"]}, controller=QUICK)


def resident_kb(running: LocalCluster) -> int:
    status = Path(f"/proc/{running.processes['controller'].pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])


def endless(path: str) -> bytes:
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"


def at(odd_path: str, says: bytes) -> Any:
    return lambda path: says if path == odd_path else well(path)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LocalCluster, RawEngine]]:
    """A good engine, and one that every test makes odd and leaves good."""
    folder = tmp_path_factory.mktemp("local_cluster")
    with local_cluster(folder, BESIDE_A_GOOD_ONE) as running, raw_engine(running.ports["late-1"]) as odd:
        yield running, odd


@pytest.mark.parametrize(
    ("says", "why"),
    [
        (at("/health", b"\x00\xffgarbage\r\n\r\n" * 100), "it does not speak HTTP"),
        (
            at("/health", http(b"", 302, "Location: http://127.0.0.1:1/")),
            "it responds to /health with status 302",
        ),
        (at("/health", endless("")), "its response to /health does not end"),
        (at("/health", http(b"x" * (10 << 20))), "it sends more than 64 KB"),
        (at("/metrics", http(b"x" * (10 << 20))), "it sends more than 4096 KB at /metrics"),
        (at("/metrics", endless("")), "it sends metrics that do not end at /metrics"),
    ],
    ids=["garbage", "redirect", "endless health", "10 MB of health", "10 MB of metrics", "endless metrics"],
)
def test_an_engine_that_begins_to_answer_nonsense_is_suspect_and_stays(
    pair: tuple[LocalCluster, RawEngine], says: Any, why: str
) -> None:
    running, odd = pair
    eventually(lambda: rotation(running) == {"big-0", "late-1"}, 30)
    before_kb = resident_kb(running)
    odd.says = says
    eventually(lambda: states(running)["late-1"] == "suspect", 30)
    assert engines(running)["late-1"]["reason"] == f"is suspect: {why}"
    asked = odd.asked

    def has_been_probed() -> bool:
        if rotation(running) != {"big-0", "late-1"} or states(running) != {"big-0": "up", "late-1": "suspect"}:
            pytest.fail(f"it did not stay: {states(running)}")
        return odd.asked >= asked + 4

    eventually(has_been_probed, 60, 0.1, "several more probes")
    assert resident_kb(running) < before_kb + 20_000
    odd.says = well
    eventually(lambda: states(running)["late-1"] == "up", 30)


def test_what_never_was_an_engine_is_never_admitted(tmp_path: Path) -> None:
    with (
        local_cluster(tmp_path, BESIDE_A_GOOD_ONE) as running,
        raw_engine(running.ports["late-1"], lambda _: b"SSH-2.0-x\r\n") as odd,
    ):
        running.kill("controller")
        shutil.rmtree(running.folder / "state")  # one that never saw nothing there
        running.start_controller()
        eventually(lambda: odd.asked > 10, 30)
        running.answers_from("big", {"big-0"})
        assert rotation(running) == {"big-0"}
        assert "late-1 is not up yet: it does not speak HTTP" in sentences(running)


def test_an_engine_that_closes_every_connection_unasked_costs_little_and_the_others_nothing(tmp_path: Path) -> None:
    with (
        local_cluster(tmp_path, BESIDE_A_GOOD_ONE) as running,
        raw_engine(running.ports["late-1"], hang_up=True) as rude,
    ):
        eventually(lambda: rotation(running) == {"big-0", "late-1"}, 30)
        before, started = rude.asked, time.monotonic()
        eventually(lambda: rude.asked >= before + 40, 60, 0.01, "forty more probes")
        # About 12 a second; asked again immediately it would be thousands.
        assert time.monotonic() - started > 1
        assert states(running) == {"big-0": "up", "late-1": "up"}


def test_a_remote_endpoint_that_is_not_there_is_not_called_up(tmp_path: Path) -> None:
    port = free_port()
    remote = {"url": f"http://127.0.0.1:{port}/v1"}
    pools = document(
        {"big": ["big-0", "late-1"], "cloud": [], "nowhere": []},
        {"cloud": {"remote": remote}, "nowhere": {"remote": {"url": "http://no-such-host.invalid/v1"}}},
        controller={"remote_interval_s": 1},
    )
    with local_cluster(tmp_path, pools) as running:
        eventually(lambda: rotation(running) == {"big-0"}, 30)
        eventually(lambda: engines(running)["127.0.0.1"]["reachable"] is False, 20)
        eventually(lambda: running.healthz()["pools"], 10)
        pools = {pool["name"]: pool for pool in running.healthz()["pools"]}
        assert (pools["cloud"]["up"], pools["cloud"]["engines"][0]["state"]) == (0, "remote")
        assert engines(running)["127.0.0.1"]["reason"] == f"nothing listens at 127.0.0.1:{port}"
        eventually(lambda: engines(running)["no-such-host.invalid"]["reachable"] is False, 20)
        with raw_engine(port):
            eventually(lambda: engines(running)["127.0.0.1"]["reachable"] is True, 20)
            eventually(lambda: {pool["name"]: pool for pool in running.healthz()["pools"]}["cloud"]["up"] == 1, 5)
            assert running.ask("cloud").status_code == 200
        said = sentences(running)
        assert f"127.0.0.1 of pool cloud is unreachable: nothing listens at 127.0.0.1:{port}" in said
        assert "127.0.0.1 of pool cloud is reachable" in said
