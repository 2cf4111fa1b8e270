"""Engines are restarted one after the other while thirty users chat: nobody notices, and an end in the middle leaves none out."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from manyeyes.cli.engine_restart import EngineStatus, Observation, Phase, Restart, RestartFailed, RestartTimes, restart
from manyeyes.devcluster.chat_load import chat_load
from manyeyes.devcluster.cluster import LocalCluster, local_cluster
from manyeyes.devcluster.eventually import eventually
from tests.integration.documents import document, with_admin_key
from tests.integration.registry_client import call

NAMES = ["big-0", "big-1", "big-2"]
RULES = RestartTimes(leave_s=3.5, finish_s=60, stop_s=20, start_s=60)


class Processes:
    """Engines of the stand: processes that are ended and started."""

    def __init__(self, running: LocalCluster) -> None:
        self.running = running
        self.done: list[tuple[str, str]] = []
        self.broken: set[str] = set()
        """Engines that end as soon as they are started."""

    def query_engines(self) -> dict[str, EngineStatus]:
        pools = self.running.healthz()["pools"]
        return {
            one["name"]: EngineStatus(pool["name"], one["state"], one["in_flight"])
            for pool in pools
            for one in pool["engines"]
        }

    def drain(self, name: str) -> None:
        self._call(name, "drain")

    def resume(self, name: str) -> None:
        self._call(name, "resume")

    def stop(self, name: str) -> None:
        self.done.append((name, "stop"))
        self.running.kill(name, signal.SIGTERM)

    def start(self, name: str) -> None:
        self.done.append((name, "start"))
        if name not in self.broken and name not in self.running.processes:
            self.running.start_engine(name)

    def find_start_failure(self, name: str) -> str:
        return "it exits repeatedly" if name in self.broken else ""

    def _call(self, name: str, what: str) -> None:
        self.done.append((name, what))
        reply = call(self.running, "POST", f"/engines/{name}/{what}", json={"reason": "test"})
        assert reply.status_code == 200, reply.text


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[LocalCluster]:
    flags = ("--tpot-ms=20", "--shutdown-timeout=15")
    with local_cluster(with_admin_key(tmp_path), document({"big": NAMES}), engine_flags=flags) as running:
        running.answers_from("big", set(NAMES))
        yield running


def held(running: LocalCluster) -> list[str]:
    return [name for name, one in Processes(running).query_engines().items() if one.state == "draining"]


def test_three_engines_restarted_under_thirty_users_fail_no_request(cluster: LocalCluster) -> None:
    before = {name: cluster.processes[name].pid for name in NAMES}
    engines = Processes(cluster)
    with chat_load(cluster.url, "big") as people:
        eventually(lambda: len(people.answers) > 60, 60)
        restart(NAMES, RULES, engines)
        seen = len(people.answers)
        eventually(lambda: set(people.answered_by(seen)) == set(NAMES), 30, 0.2, "every engine answers again")
    people.assert_nothing_lost(cut_on=set())
    assert people.outcomes["cut"] == 0
    assert engines.done == [(name, what) for name in NAMES for what in ("drain", "stop", "start", "resume")], (
        "one after the other"
    )
    assert not set(before.values()) & {cluster.processes[name].pid for name in NAMES}


def test_an_engine_that_does_not_come_up_ends_it_and_the_others_go_on(cluster: LocalCluster) -> None:
    engines = Processes(cluster)
    engines.broken = {"big-1"}
    with chat_load(cluster.url, "big") as people:
        eventually(lambda: len(people.answers) > 60, 60)
        with pytest.raises(RestartFailed, match="big-1: it exits repeatedly"):
            restart(NAMES, RULES, engines)
    people.assert_nothing_lost(cut_on=set())
    assert people.outcomes["cut"] == 0
    assert ("big-2", "drain") not in engines.done
    assert held(cluster) == []
    cluster.answers_from("big", {"big-0", "big-2"})


@pytest.mark.parametrize("phase", [Phase.LEAVING, Phase.STOPPING, Phase.STARTING, Phase.JOINING])
def test_interrupted_anywhere_it_leaves_every_engine_in(cluster: LocalCluster, phase: Phase) -> None:
    def interrupt(progress: Restart, observation: Observation) -> None:
        if progress.phase is phase:
            raise KeyboardInterrupt

    with chat_load(cluster.url, "big") as people:
        eventually(lambda: len(people.answers) > 60, 60)
        with pytest.raises(KeyboardInterrupt):
            restart(["big-1"], RULES, Processes(cluster), on_step=interrupt)
        eventually(lambda: held(cluster) == [], 20, 0.2, "no engine is held")
        seen = len(people.answers)
        eventually(lambda: set(people.answered_by(seen)) == set(NAMES), 60, 0.2, "every engine answers")
    people.assert_nothing_lost(cut_on=set())
