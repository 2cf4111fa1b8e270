"""Everything that happens to a cluster, under 30 chatting users: nobody without a first byte is turned away."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.eventually import eventually
from tests.process.crowd import Crowd, crowd
from tests.process.rotation import SLACK
from tests.process.stand import Stand, stand

NAMES = {"big-0", "big-1", "big-2"}


def three_engines() -> dict[str, Any]:
    return {
        "pools": [
            {"name": "big", "model": "org/Big-VL", "fallback": "small"},
            {"name": "small", "model": "org/Small-VL"},
        ],
        "engines": [
            *({"name": name, "pool": "big"} for name in sorted(NAMES)),
            {"name": "late-3", "pool": "big"},
            {"name": "small-0", "pool": "small"},
        ],
    }


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Stand]:
    with stand(tmp_path, three_engines(), engine_flags=("--tpot-ms=20", "--shutdown-timeout=15")) as running:
        running.all_up(NAMES | {"small-0"})
        running.answers_from("big", NAMES)
        yield running


def served(people: Crowd, engines: set[str], within_s: float = 15) -> None:
    """Waits until requests are answered by exactly `engines`."""

    def check() -> bool:
        since = len(people.seen)
        time.sleep(1.5)
        names = set(people.answered_by(since))
        assert names == engines, names
        return True

    eventually(check, within_s, 0.1, f"answers from exactly {sorted(engines)}")


def test_an_engine_killed_and_one_that_returns(cluster: Stand) -> None:
    with crowd(cluster.url, "big") as people:
        served(people, NAMES)
        cluster.kill("big-1")
        served(people, NAMES - {"big-1"})
        cluster.start_engine("big-1")
        served(people, NAMES)
    people.assert_nothing_lost(cut_on={"big-1"})


def test_an_engine_that_hangs_is_taken_out_and_loses_only_streams_that_had_begun(cluster: Stand) -> None:
    with crowd(cluster.url, "big") as people:
        served(people, NAMES)
        os.killpg(cluster.processes["big-2"].pid, signal.SIGSTOP)
        stopped = time.monotonic()
        eventually(lambda: states(cluster)["big-2"] == "down", 10 * SLACK, 0.1, "the hung engine is out")
        assert time.monotonic() - stopped <= 10 * SLACK
        served(people, NAMES - {"big-2"})
        # As whoever looks after it does with a hung process; those who waited for their first byte are answered elsewhere.
        cluster.kill("big-2")
    people.assert_nothing_lost(cut_on={"big-2"})


def states(cluster: Stand) -> dict[str, str]:
    return {one["name"]: one["state"] for pool in cluster.healthz()["pools"] for one in pool["engines"]}


def test_an_engine_added_gets_its_share_and_one_removed_loses_nothing(cluster: Stand) -> None:
    with crowd(cluster.url, "big") as people:
        served(people, NAMES)
        cluster.start_engine("late-3")
        served(people, NAMES | {"late-3"})
        cluster.kill("late-3", signal.SIGTERM)  # answers 500 to what is new and finishes what it runs
        served(people, NAMES)
    people.assert_nothing_lost(cut_on=set())


def test_the_controller_killed_and_back(cluster: Stand) -> None:
    with crowd(cluster.url, "big") as people:
        served(people, NAMES)
        cluster.kill("controller")
        served(people, NAMES)
        cluster.start_controller()
        served(people, NAMES)
    people.assert_nothing_lost(cut_on=set())


def test_nginx_reloaded(cluster: Stand) -> None:
    with crowd(cluster.url, "big") as people:
        served(people, NAMES)
        for _ in range(3):
            os.kill(cluster.processes["nginx"].pid, signal.SIGHUP)
            time.sleep(1)
        served(people, NAMES)
    people.assert_nothing_lost(cut_on=set())


def test_a_pool_that_goes_down_is_answered_by_its_fallback_within_a_second_and_comes_back(cluster: Stand) -> None:
    for name in sorted(NAMES):
        cluster.kill(name)
    killed = time.monotonic()
    reply = cluster.ask("big")
    assert time.monotonic() - killed < 1 * SLACK
    assert (reply.status_code, reply.headers["X-ManyEyes-Pool"], reply.headers["X-ManyEyes-Fallback"]) == (
        200,
        "small",
        "big",
    )
    cluster.all_down(NAMES)  # until then the gateway may still ask them
    cluster.start_engine("big-0")
    cluster.all_up({"big-0"})
    eventually(lambda: served_by(cluster) == "big-0", 15, 0.2, "the pool answers again")
    for _ in range(5):
        assert "X-ManyEyes-Fallback" not in cluster.ask("big").headers


def served_by(cluster: Stand) -> str:
    return str(cluster.ask("big").headers.get("X-ManyEyes-Engine"))


def test_two_of_three_engines_killed_at_once_without_a_fallback_cost_no_request(tmp_path: Path) -> None:
    document = three_engines()
    del document["pools"][0]["fallback"]
    with stand(tmp_path, document, engine_flags=("--tpot-ms=20",)) as cluster:
        cluster.answers_from("big", NAMES)
        with crowd(cluster.url, "big") as people:
            served(people, NAMES)
            cluster.kill("big-0")
            cluster.kill("big-1")
            served(people, {"big-2"})
        people.assert_nothing_lost(cut_on={"big-0", "big-1"})
