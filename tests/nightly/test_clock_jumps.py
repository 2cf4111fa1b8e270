"""The clock jumps while people ask: nobody notices. The quick test, and the clock itself, are in tests/integration."""

import subprocess

from manyeyes.devcluster.chat_load import chat_load
from manyeyes.devcluster.cluster import LocalCluster
from manyeyes.devcluster.eventually import eventually
from tests.integration.test_clock_jump import Clock, clock, cluster, states

__all__ = ["clock", "cluster"]


def test_a_clock_that_jumps_an_hour_forward_and_two_back_costs_no_request_and_no_engine(
    cluster: LocalCluster, clock: Clock
) -> None:
    with chat_load(cluster.url, "big", users=8) as people:
        for offset in ("+3600", "-7200", "+0"):
            clock.set(offset)
            before = len(people.answers)
            eventually(lambda before=before: len(people.answers) > before + 60, 30, 0.1)  # type: ignore[misc]
            assert states(cluster) == {"up"}, offset
    people.assert_nothing_lost(cut_on=set())
    assert '"state": "down"' not in cluster.log("controller")


def test_the_clock_of_this_test_is_what_the_controller_sees(cluster: LocalCluster, clock: Clock) -> None:
    clock.set("+31536000")
    year = subprocess.run(["date", "-u", "+%Y"], env=None, check=True, capture_output=True, text=True).stdout
    cluster.kill("big-1")
    cluster.all_down({"big-1"}, 10)
    assert f'"at": "{year.strip()}-' in cluster.log("controller").splitlines()[-1]
    clock.set("+0")
    assert subprocess.run(["date", "-u", "+%Y"], check=True, capture_output=True, text=True).stdout != year
