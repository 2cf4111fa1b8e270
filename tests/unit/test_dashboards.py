"""The dashboards as files; whether they show anything is asked of a real cluster in tests/compose."""

import json
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from controller.state import State
from monitoring.grafana import build, cluster

ROOT = Path(__file__).resolve().parents[2]
DASHBOARD = json.loads(build.CLUSTER_JSON.read_text(encoding="utf-8"))
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
each_panel = pytest.mark.parametrize("panel", PANELS, ids=[panel["title"] for panel in PANELS])


def test_the_committed_dashboard_is_what_build_makes() -> None:
    assert build.CLUSTER_JSON.read_text(encoding="utf-8") == build.cluster_json(), (
        "run python -m monitoring.grafana.build"
    )


@each_panel
def test_a_panel_has_a_title_a_unit_and_says_when_to_worry(panel: dict[str, Any]) -> None:
    assert panel["title"]
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert re.fullmatch(r"[A-Z].+\. .*Worry .+\.", panel["description"])


@each_panel
def test_a_panel_asks_the_provisioned_prometheus(panel: dict[str, Any]) -> None:
    provisioned = yaml.safe_load((ROOT / "monitoring/grafana/provisioning/datasources/prometheus.yaml").read_text())
    uids = [source["uid"] for source in provisioned["datasources"]]
    assert panel["targets"]
    assert all(target["datasource"]["uid"] in uids for target in panel["targets"])


@each_panel
def test_a_query_about_engines_obeys_both_variables(panel: dict[str, Any]) -> None:
    for target in panel["targets"]:
        for selector in re.findall(r"(?:vllm:|manyeyes_engine)\w+(\{[^}]*\})?", target["expr"]):
            assert 'pool=~"$pool"' in selector
            assert 'engine=~"$engine"' in selector


def test_panels_do_not_overlap_and_stay_on_the_grid() -> None:
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] >= 0, panel["title"]
        assert place["x"] + place["w"] <= 24, panel["title"]
    for one, other in combinations(DASHBOARD["panels"], 2):
        assert not overlap(one["gridPos"], other["gridPos"]), f"{one['title']} lies on {other['title']}"


def overlap(one: dict[str, int], other: dict[str, int]) -> bool:
    return (
        one["x"] < other["x"] + other["w"]
        and other["x"] < one["x"] + one["w"]
        and one["y"] < other["y"] + other["h"]
        and other["y"] < one["y"] + one["h"]
    )


def test_each_panel_has_its_own_id_and_title() -> None:
    for key in ("id", "title"):
        values = [panel[key] for panel in DASHBOARD["panels"]]
        assert len(values) == len(set(values))


def test_the_timeline_names_every_state_of_the_controller() -> None:
    assert {state.value for state in State} <= {name for _, name, _ in cluster.STATES}


def test_grafana_reads_dashboards_where_compose_puts_them() -> None:
    provider = yaml.safe_load((ROOT / "monitoring/grafana/provisioning/dashboards/manyeyes.yaml").read_text())
    compose = yaml.safe_load((ROOT / "compose/monitoring.yaml").read_text())
    mounts = dict(volume.split(":")[:2] for volume in compose["services"]["grafana"]["volumes"])
    assert mounts["./monitoring/grafana/dashboards"] == provider["providers"][0]["options"]["path"]
    assert mounts["./monitoring/grafana/provisioning"] == "/etc/grafana/provisioning"
