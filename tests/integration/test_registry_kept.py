"""What was registered outlives the controller: killed at any instant, restarted over damaged files, under another cluster.yaml."""

import itertools
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from manyeyes.devcluster.cluster import LocalCluster, local_cluster
from manyeyes.devcluster.eventually import eventually
from tests.integration.documents import document, with_admin_key
from tests.integration.membership import sentences
from tests.integration.registry_client import AUTHORIZED, call, controller_answers, register, registered_engines


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[LocalCluster]:
    pools = document({"big": ["late-big-0", "late-big-1"], "small": []})
    with local_cluster(with_admin_key(tmp_path), pools) as running:
        controller_answers(running)
        yield running


def restart(running: LocalCluster, number: int = signal.SIGKILL) -> None:
    running.kill("controller", number)
    running.start_controller()
    controller_answers(running)


def registering(url: str, numbers: Iterator[int], promised: set[str], gone: set[str], stop: threading.Event) -> None:
    """Registers, and removes every third again, as fast as it is answered. What was answered is promised."""
    with httpx.Client(timeout=5, headers=AUTHORIZED) as client:
        while not stop.is_set():
            name = f"extra-{next(numbers)}"
            body = {"name": name, "pool": "big", "address": "127.0.0.1:9"}
            try:
                if client.post(f"{url}/api/engines", json=body).status_code != 201:
                    continue
                promised.add(name)
                if int(name.removeprefix("extra-")) % 3 == 0:
                    promised.discard(name)
                    if client.delete(f"{url}/api/engines/{name}").status_code == 200:
                        gone.add(name)
            except httpx.TransportError:
                time.sleep(0.01)


def test_killed_in_the_middle_of_registrations_it_keeps_every_one_it_acknowledged_and_no_half_one(
    cluster: LocalCluster,
) -> None:
    url = f"http://127.0.0.1:{cluster.ports['controller']}"
    promised: set[str] = set()
    gone: set[str] = set()
    numbers = itertools.count()
    for round_ in range(6):
        stop = threading.Event()
        users = [threading.Thread(target=registering, args=(url, numbers, promised, gone, stop)) for _ in range(2)]
        before = len(promised)
        for user in users:
            user.start()
        eventually(lambda before=before, round_=round_: len(promised) >= before + 3 + round_, 30, 0.005)  # type: ignore[misc]
        cluster.kill("controller")
        stop.set()
        for user in users:
            user.join()
        for file in (cluster.folder / "state/engines").glob("*.yaml"):
            assert yaml.safe_load(file.read_text())["name"] == file.stem
        cluster.start_controller()
        controller_answers(cluster)
        found = set(registered_engines(cluster))
        assert promised <= found
        assert not gone & found
    assert not list((cluster.folder / "state").rglob("*.bad"))


def test_a_damaged_file_is_set_aside_and_the_others_are_in_force(cluster: LocalCluster) -> None:
    for name in ("extra-0", "extra-1"):
        register(cluster, name)
    assert call(cluster, "POST", "/pools", json={"name": "more", "model": "org/More"}).is_success
    assert call(cluster, "PATCH", "/engines/late-big-0", json={"weight": 7}).is_success
    state = cluster.folder / "state"
    (state / "engines/extra-0.yaml").write_bytes(b"name: [\xff")
    (state / "engines/not-an-engine.yaml").write_text("name: not-an-engine\nport: 7\n")
    (state / "engines/other.yaml").write_text((state / "engines/extra-1.yaml").read_text())
    (state / "pools/more.yaml").write_text("")
    (state / "weights.yaml").write_text("late-big-0: heavy\n")
    restart(cluster)
    assert set(registered_engines(cluster)) == {"late-big-0", "late-big-1", "extra-1"}
    assert registered_engines(cluster)["late-big-0"]["weight"] == 1
    aside = {path.name.split(".")[0] for path in state.rglob("*.bad")}
    assert aside == {"extra-0", "not-an-engine", "other", "more", "weights"}
    assert "state_set_aside" in cluster.log("controller")


def test_one_that_the_new_cluster_yaml_has_no_room_for_waits_and_comes_back_with_it(cluster: LocalCluster) -> None:
    register(cluster, "extra", "small")
    file = cluster.folder / "cluster.yaml"
    with_small = file.read_text()
    without: dict[str, Any] = yaml.safe_load(with_small)
    without["pools"] = [pool for pool in without["pools"] if pool["name"] != "small"]
    file.write_text(yaml.safe_dump(without))
    restart(cluster, signal.SIGTERM)
    assert "extra" not in registered_engines(cluster)
    assert any(
        one.startswith("extra, registered by API, is not applied: engines[extra].pool") for one in sentences(cluster)
    )
    file.write_text(with_small)
    restart(cluster, signal.SIGTERM)
    assert registered_engines(cluster)["extra"]["pool"] == "small"
    # One that waits can be removed for good.
    file.write_text(yaml.safe_dump(without))
    restart(cluster, signal.SIGTERM)
    assert call(cluster, "DELETE", "/engines/extra").is_success
    assert not (cluster.folder / "state/engines/extra.yaml").exists()
