"""A cluster of processes with its own Prometheus and Alertmanager: the rules work out, and faults raise their alert and no other.

The whole table of faults is `tests/run alert-drill`; here are three of them.
"""

from collections.abc import Iterator
from typing import Any

import pytest

from manyeyes.devcluster.cluster import local_cluster
from manyeyes.devcluster.eventually import eventually
from manyeyes.devcluster.monitored_cluster import MonitoredCluster, monitored_cluster, shipped_cluster
from manyeyes.monitoring.prometheus.rules import rules
from tests.alert_drill import faults
from tests.alert_drill.faults import ENGINES, FAULTS, drill
from tests.prometheus import contract

BY_NAME = {one.name: one for one in FAULTS}


@pytest.fixture(scope="module")
def beside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MonitoredCluster]:
    with local_cluster(tmp_path_factory.mktemp("alerts"), faults.document(), engine_flags=("--faults",)) as running:
        running.all_up(set(ENGINES))
        with monitored_cluster(running) as made:
            yield made


@pytest.mark.parametrize("name", ["pool-killed-with-fallback", "configuration", "controller-killed"])
def test_a_fault_raises_its_alerts_and_no_other_and_they_go_with_it(beside: MonitoredCluster, name: str) -> None:
    made = drill(beside, BY_NAME[name])
    assert made.others == []
    assert beside.failed_rules() == []


def test_a_page_reaches_who_is_to_be_told_and_so_does_its_end(beside: MonitoredCluster) -> None:
    before = len(beside.receiver.notifications)

    def sent(status: str) -> list[dict[str, Any]]:
        alerts = [alert for message in beside.receiver.notifications[before:] for alert in message["alerts"]]
        return [one for one in alerts if (one["status"], one["labels"].get("job")) == (status, "gateway")]

    made = drill(beside, BY_NAME["exporter-killed"], seen=lambda: sent("firing"))
    assert made.others == []
    alert = sent("firing")[0]
    assert alert["labels"]["alertname"] == "TargetMissing"
    assert alert["annotations"]["runbook_url"] == f"docs/runbooks/{alert['labels']['alertname']}.md"
    assert alert["labels"]["severity"] in ("page", "ticket")
    eventually(lambda: sent("resolved"), 60, 0.2, "the webhook is told that it is over")


def test_every_metric_and_label_in_rules_and_alerts_is_told_by_somebody(beside: MonitoredCluster) -> None:
    groups = rules(shipped_cluster())["groups"]
    recorded = {rule["record"]: rule["expr"] for group in groups for rule in group["rules"] if "record" in rule}
    queries = [rule["expr"] for group in groups for rule in group["rules"]]
    elsewhere = ("node_filesystem_avail_bytes",)  # its collector is off here; tests/e2e looks at it

    def all_told() -> bool:
        problems = contract.all_problems(beside.ask, recorded, queries)
        missing = [one for one in problems if not any(name in one for name in elsewhere)]
        assert missing == []
        return True

    eventually(all_told, 90, 1, "every metric is told")


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("vllm:no_such_thing", "nothing tells vllm:no_such_thing"),
        ('manyeyes_requests_total{model="x"}', "manyeyes_requests_total has no label model"),
        ("sum by (host) (manyeyes_requests_total)", "none of manyeyes_requests_total has host"),
        ("pool:engines_up:sum and on (engine) pool:engines:count", "none of pool:engines_up:sum has engine"),
    ],
)
def test_a_metric_or_label_that_nobody_tells_is_found(beside: MonitoredCluster, query: str, problem: str) -> None:
    def found() -> bool:
        return any(one.startswith(problem) for one in contract.all_problems(beside.ask, {}, [query]))

    eventually(
        found, 60, 0.5, problem
    )  # of a metric whose first series Prometheus has not fetched yet, labels are not known
