"""Every metric and label in every rule, alert and panel is told by the real vLLM, the exporters or the controller of a running cluster.

MANYEYES_PROMETHEUS_URL=http://127.0.0.1:9090 pytest tests/e2e/test_rules_have_their_series.py
"""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from manyeyes.config.loader import load
from manyeyes.config.placement import Inventory, place_engines
from manyeyes.devcluster.eventually import eventually
from manyeyes.devcluster.monitored_cluster import shipped_cluster
from manyeyes.monitoring.grafana import build
from manyeyes.monitoring.prometheus.rules import rules
from tests.e2e.test_dashboards_have_data import PROMETHEUS, ask, chosen
from tests.prometheus import contract

CLUSTER = Path(__file__).with_name("cluster.yaml")
GROUPS = rules(shipped_cluster())["groups"]
RECORDED = {rule["record"]: rule["expr"] for group in GROUPS for rule in group["rules"] if "record" in rule}
NAMES = {rule.get("record") or rule["alert"]: rule["expr"] for group in GROUPS for rule in group["rules"]}
SCRAPES_S = 30

pytestmark = pytest.mark.skipif(not PROMETHEUS, reason="MANYEYES_PROMETHEUS_URL is not set: no Prometheus to ask")


def panels() -> list[Any]:
    found = []
    for file in sorted(build.FOLDER.glob("*.json")):
        dashboard = json.loads(file.read_text(encoding="utf-8"))
        for panel in dashboard["panels"]:
            found += [
                pytest.param(
                    target["expr"], id=f"{dashboard['title']}, {panel['title']}: {target.get('legendFormat', '')}"
                )
                for target in panel.get("targets", [])
                if "expr" in target
            ]
    return found


@pytest.fixture(scope="module")
def held() -> contract.Contract:
    eventually(
        lambda: ask("query", query="manyeyes_container_memory_bytes")["result"],
        SCRAPES_S,
        1,
        "containers are looked at",
    )
    return contract.Contract(ask, RECORDED)


@pytest.mark.parametrize("name", NAMES)
def test_a_rule_goes_by_metrics_and_labels_that_are_there(held: contract.Contract, name: str) -> None:
    assert held.problems(NAMES[name]) == []


@pytest.mark.parametrize("query", panels())
def test_a_panel_shows_metrics_and_labels_that_are_there(held: contract.Contract, query: str) -> None:
    assert held.problems(re.sub(r"\$\{?\w+\}?", "5m", chosen(query))) == []


def test_prometheus_runs_the_rules_of_this_cluster_and_can_work_out_each() -> None:
    told = [rule for group in ask("rules")["groups"] for rule in group["rules"]]
    cluster = place_engines(load(CLUSTER), Inventory(flavour="cpu"))
    assert {one["name"] for one in told} == {
        rule.get("record") or rule["alert"] for group in rules(cluster)["groups"] for rule in group["rules"]
    }
    assert [f"{one['name']}: {one.get('lastError')}" for one in told if one["health"] == "err"] == []


def test_nothing_is_wrong_with_a_cluster_that_was_just_brought_up() -> None:
    firing = [one["labels"] for one in ask("alerts")["alerts"] if one["state"] == "firing"]
    # These two look back, and Prometheus' volume outlives clusters: engines that a test before this one killed may be in it.
    before = {"EngineRestarts", "EngineFlapping"}
    assert [labels for labels in firing if labels["alertname"] not in before] == []
