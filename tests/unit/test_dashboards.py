"""The dashboards as files; whether they show anything is asked of a real cluster in tests/compose."""

import json
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from controller import metrics as controller_metrics
from controller.state import State
from monitoring.grafana import build, cluster

ROOT = Path(__file__).resolve().parents[2]
DASHBOARDS = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(build.FOLDER.glob("*.json"))]
PANELS = [
    pytest.param(panel, id=f"{dashboard['title']}: {panel['title']}")
    for dashboard in DASHBOARDS
    for panel in dashboard["panels"]
    if panel["type"] != "row"
]
each_panel = pytest.mark.parametrize("panel", PANELS)
each_dashboard = pytest.mark.parametrize("dashboard", DASHBOARDS, ids=[dashboard["title"] for dashboard in DASHBOARDS])


def test_the_committed_dashboards_are_what_build_makes() -> None:
    committed = {file: file.read_text(encoding="utf-8") for file in build.FOLDER.glob("*.json")}
    assert committed == build.files(), "run python -m monitoring.grafana.build"


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


@each_panel
def test_a_query_about_requests_obeys_the_variables_that_its_series_have_labels_for(panel: dict[str, Any]) -> None:
    metrics = {metric._name: metric._labelnames for metric in controller_metrics.ALL}
    for target in panel["targets"]:
        for name, selector in re.findall(r"(manyeyes_[a-z_]+?)(?:_total|_bucket)\b(\{[^}]*\})?", target["expr"]):
            assert name in metrics, "the controller has no such metric"
            assert ('pool=~"$pool"' in selector) == ("pool" in metrics[name]), name
            assert metrics[name] or selector in ("", "{}")


@each_dashboard
def test_panels_do_not_overlap_and_stay_on_the_grid(dashboard: dict[str, Any]) -> None:
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        assert place["x"] >= 0, panel["title"]
        assert place["x"] + place["w"] <= 24, panel["title"]
    for one, other in combinations(dashboard["panels"], 2):
        assert not overlap(one["gridPos"], other["gridPos"]), f"{one['title']} lies on {other['title']}"


def overlap(one: dict[str, int], other: dict[str, int]) -> bool:
    return (
        one["x"] < other["x"] + other["w"]
        and other["x"] < one["x"] + one["w"]
        and one["y"] < other["y"] + other["h"]
        and other["y"] < one["y"] + one["h"]
    )


@each_dashboard
def test_each_panel_has_its_own_id_and_title(dashboard: dict[str, Any]) -> None:
    for key in ("id", "title"):
        values = [panel[key] for panel in dashboard["panels"]]
        assert len(values) == len(set(values))


def test_each_dashboard_has_its_own_address_and_the_same_choices() -> None:
    uids = {dashboard["uid"] for dashboard in DASHBOARDS}
    assert len(uids) == len(DASHBOARDS)
    assert all(dashboard["templating"] == DASHBOARDS[0]["templating"] for dashboard in DASHBOARDS)


def test_the_timeline_names_every_state_of_the_controller() -> None:
    assert {state.value for state in State if state is not State.REMOTE} <= {name for _, name, _ in cluster.STATES}


def test_grafana_reads_dashboards_where_compose_puts_them() -> None:
    provider = yaml.safe_load((ROOT / "monitoring/grafana/provisioning/dashboards/manyeyes.yaml").read_text())
    compose = yaml.safe_load((ROOT / "compose/monitoring.yaml").read_text())
    mounts = dict(volume.split(":")[:2] for volume in compose["services"]["grafana"]["volumes"])
    assert mounts["./monitoring/grafana/dashboards"] == provider["providers"][0]["options"]["path"]
    assert mounts["./monitoring/grafana/provisioning"] == "/etc/grafana/provisioning"
