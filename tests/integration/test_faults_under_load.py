"""Everything that happens to a cluster, under 30 chatting users: nobody without a first byte is turned away."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from manyeyes.devcluster.chat_load import ChatLoad, chat_load
from manyeyes.devcluster.cluster import LocalCluster, local_cluster
from manyeyes.devcluster.eventually import eventually
from tests.integration.documents import document
from tests.integration.membership import states, within

NAMES = {"big-0", "big-1", "big-2"}


POOLS = {"big": [*sorted(NAMES), "late-3"], "small": ["small-0"]}


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[LocalCluster]:
    with local_cluster(
        tmp_path,
        document(POOLS, {"big": {"fallback": "small"}}),
        engine_flags=("--tpot-ms=20", "--shutdown-timeout=15"),
    ) as running:
        running.all_up(NAMES | {"small-0"})
        running.answers_from("big", NAMES)
        yield running


def served(people: ChatLoad, engines: set[str], within_s: float = 15) -> None:
    """Waits until requests are answered by exactly `engines`."""

    def check() -> bool:
        since = len(people.answers)
        eventually(lambda: len(people.answers) >= since + 60, 30, 0.02, "60 more answers")
        names = set(people.answered_by(since))
        assert names == engines, names
        return True

    eventually(check, within_s, 0.1, f"answers from exactly {sorted(engines)}")


def test_an_engine_killed_and_one_that_returns(cluster: LocalCluster) -> None:
    with chat_load(cluster.url, "big") as people:
        served(people, NAMES)
        cluster.kill("big-1")
        served(people, NAMES - {"big-1"})
        cluster.start_engine("big-1")
        served(people, NAMES)
    people.assert_nothing_lost(cut_on={"big-1"})


def test_an_engine_that_hangs_is_taken_out_and_loses_only_streams_that_had_begun(cluster: LocalCluster) -> None:
    with chat_load(cluster.url, "big") as people:
        served(people, NAMES)
        os.killpg(cluster.processes["big-2"].pid, signal.SIGSTOP)
        stopped = time.monotonic()
        within(10, stopped, lambda: states(cluster)["big-2"] == "down", "the hung engine is out")
        served(people, NAMES - {"big-2"})
        # As whoever looks after it does with a hung process; those who waited for their first byte are answered elsewhere.
        cluster.kill("big-2")
    people.assert_nothing_lost(cut_on={"big-2"})


def test_an_engine_added_gets_its_share_and_one_removed_loses_nothing(cluster: LocalCluster) -> None:
    with chat_load(cluster.url, "big") as people:
        served(people, NAMES)
        cluster.start_engine("late-3")
        served(people, NAMES | {"late-3"})
        cluster.kill("late-3", signal.SIGTERM)  # answers 500 to what is new and finishes what it runs
        served(people, NAMES)
    people.assert_nothing_lost(cut_on=set())


def test_the_controller_killed_and_back(cluster: LocalCluster) -> None:
    with chat_load(cluster.url, "big") as people:
        served(people, NAMES)
        cluster.kill("controller")
        # Beyond every DNS answer's time to live.
        eventually(lambda: "could not be resolved" in cluster.log("nginx"), 30, 0.2, "nginx has asked in vain")
        served(people, NAMES)
        cluster.start_controller()
        served(people, NAMES)
    people.assert_nothing_lost(cut_on=set())


def test_nginx_reloaded(cluster: LocalCluster) -> None:
    with chat_load(cluster.url, "big") as people:
        served(people, NAMES)
        for _ in range(3):
            os.kill(cluster.processes["nginx"].pid, signal.SIGHUP)
            served(people, NAMES)
        served(people, NAMES)
    people.assert_nothing_lost(cut_on=set())


def test_a_pool_that_goes_down_is_answered_by_its_fallback_within_a_second_and_comes_back(
    cluster: LocalCluster,
) -> None:
    for name in sorted(NAMES):
        cluster.kill(name)
    killed = time.monotonic()
    reply = cluster.ask("big")
    within(1, killed, lambda: True, "the fallback answers")
    assert reply.status_code == 200
    assert (reply.headers["X-ManyEyes-Pool"], reply.headers["X-ManyEyes-Fallback"]) == ("small", "big")
    cluster.all_down(NAMES)  # until then the gateway may still ask them
    cluster.start_engine("big-0")
    cluster.all_up({"big-0"})
    eventually(lambda: served_by(cluster) == "big-0", 15, 0.2, "the pool answers again")
    for _ in range(5):
        assert "X-ManyEyes-Fallback" not in cluster.ask("big").headers


def served_by(cluster: LocalCluster) -> str:
    return str(cluster.ask("big").headers.get("X-ManyEyes-Engine"))


def test_two_of_three_engines_killed_at_once_without_a_fallback_cost_no_request(tmp_path: Path) -> None:
    with local_cluster(tmp_path, document(POOLS), engine_flags=("--tpot-ms=20",)) as cluster:
        cluster.answers_from("big", NAMES)
        with chat_load(cluster.url, "big") as people:
            served(people, NAMES)
            cluster.kill("big-0")
            cluster.kill("big-1")
            served(people, {"big-2"})
        people.assert_nothing_lost(cut_on={"big-0", "big-1"})
