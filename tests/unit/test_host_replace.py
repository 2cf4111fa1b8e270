"""Engines that have other names: the old container serves until the new one is up, and what is started is written down only then."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from manyeyes.cli import engine_containers, started_services
from manyeyes.cli.engine_restart import EngineStatus
from manyeyes.config.placement import PlacedCluster
from tests.placed import placed

NEW = "pools: [{{name: large, model: org/Big}}]\nengines:\n  - {{name: g-0, pool: large{gpu0}}}\n  - {{name: g-1, pool: large{gpu1}}}\n"


class Host:
    """Containers of e-0 and e-1 as they run, and everything that is done to them."""

    project, rendered = "p", Path()

    def __init__(
        self, folder: Path, cluster: PlacedCluster, monkeypatch: pytest.MonkeyPatch, gpus: Sequence[str]
    ) -> None:
        self.cluster, self.done, self.up = cluster, list[str](), ["e-0", "e-1"]
        self.least_up = 2
        devices = [{"reservations": {"devices": [{"device_ids": [gpu]}]}} for gpu in gpus] or [{}, {}]
        services = {
            f"e-{number}": {"labels": {"manyeyes.engine": f"e-{number}"}, "deploy": {"resources": resources}}
            for number, resources in enumerate(devices)
        }
        (folder / "engines.yaml").write_text(
            yaml.safe_dump({"services": {**services, "g-0": {"labels": {}}, "g-1": {"labels": {}}}})
        )
        started_services.record(folder, services)
        monkeypatch.setattr(engine_containers, "ROOT", folder)
        monkeypatch.setattr("docker.client.DockerClient.from_env", lambda **_: self)
        self.api, self.close = self, lambda: None
        monkeypatch.setattr(
            "manyeyes.cli.gateway_client.drain", lambda compose, cluster, name, reason: self.note(f"drain {name}")
        )
        monkeypatch.setattr("manyeyes.cli.readiness.wait_until_up", self.comes_up)
        monkeypatch.setattr(engine_containers, "EngineContainers", lambda cluster, compose: self)
        monkeypatch.setattr(engine_containers, "restart_times", lambda cluster: Times())
        self.folder = folder

    def __call__(self, *arguments: str) -> str:
        self.note(f"start {arguments[-1]}")
        return ""

    def note(self, what: str) -> None:
        self.done.append(what)

    def comes_up(self, cluster: PlacedCluster, compose: Any, current: Any, deadline_s: float, names: set[str]) -> None:
        (name,) = names
        assert name not in started_services.services(self.folder), "the controller would let go of the old one"
        self.up.append(name)

    def query_engines(self) -> dict[str, EngineStatus]:
        return {name: EngineStatus("large", "up", 0) for name in self.up}

    def subnet(self) -> str:
        return str(self.cluster.network.subnet)

    def containers(self) -> list[dict[str, str]]:
        return [{"Service": name, "Id": name} for name in self.up]

    def stop(self, container: str) -> None:
        self.note(f"stop {container}")

    def remove_container(self, container: str) -> None:
        assert self.done[-1] == f"stop {container}"
        self.done[-1] = f"end {container}"
        self.up.remove(container)
        self.least_up = min(self.least_up, len(self.up))


class Times:
    leave_s = finish_s = start_s = 0.0


def host(folder: Path, monkeypatch: pytest.MonkeyPatch, gpus: Sequence[str] = ()) -> Host:
    flavours = [f", gpus: [{gpu}]" for gpu in gpus] or [", flavour: emulated"] * 2
    return Host(folder, placed(NEW.format(gpu0=flavours[0], gpu1=flavours[1])), monkeypatch, gpus)


def test_each_new_engine_is_up_before_an_old_one_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here: Any = host(tmp_path, monkeypatch)
    old = engine_containers.engines_to_replace(here.cluster, here, {"e-0", "e-1", "gateway"})
    assert old == ["e-0", "e-1"]
    engine_containers.replace(here.cluster, here, ["g-0", "g-1"], old)
    assert here.done == ["start g-0", "drain e-0", "end e-0", "start g-1", "drain e-1", "end e-1"]
    assert here.least_up == 2
    assert set(started_services.services(tmp_path)) == {"g-0", "g-1"}


def test_an_engine_on_the_same_gpu_ends_first_and_the_others_serve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here: Any = host(tmp_path, monkeypatch, gpus=("0", "1"))
    engine_containers.replace(here.cluster, here, ["g-0", "g-1"], ["e-0", "e-1"])
    assert here.done == ["drain e-0", "end e-0", "start g-0", "drain e-1", "end e-1", "start g-1"]
    assert here.least_up == 1


def test_engines_that_move_to_another_network_are_not_replaced_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here: Any = host(tmp_path, monkeypatch)
    here.subnet = lambda: "10.9.0.0/24"
    assert engine_containers.engines_to_replace(here.cluster, here, {"e-0", "e-1"}) == []
