"""The dashboards as files; whether they show anything is asked of a real cluster in tests/e2e."""

import json
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from manyeyes.controller import metrics as controller_metrics
from manyeyes.controller.health.states import EngineState
from manyeyes.monitoring.grafana import build, engines
from manyeyes.monitoring.prometheus import recording

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
    assert committed == build.files(), "run python -m manyeyes.monitoring.grafana.build"


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
def test_a_query_obeys_the_variables_that_its_series_have_labels_for(panel: dict[str, Any]) -> None:
    labels = {name: set(names) for name, names in controllers_series()}
    levels = {"pool": {"pool"}, "pool_engine": {"pool", "engine"}, "gpu": {"gpu"}, "cluster": set[str]()}
    for target in panel["targets"]:
        for name, selector in re.findall(
            r"\b((?:manyeyes_|vllm:|DCGM_)\w+|[a-z_]+:[a-z_]+:\w+)(\{[^}]*\})?", target["expr"]
        ):
            if name.startswith("vllm:"):
                has = {"pool", "engine"}
            elif name.startswith("DCGM_"):
                has = {"gpu"}
            elif ":" in name:
                assert name in RECORDED, f"no recording rule is called {name}"
                has = levels[name.partition(":")[0]]
            else:
                assert name in labels, f"the controller has no metric {name}"
                has = labels[name]
            for variable in ("pool", "engine", "gpu"):
                obeys = f'{variable}=~"${variable}"' in selector
                assert not obeys or variable in has, (name, selector)
                # What users got is shown for a whole pool, whichever of its engines is chosen.
                users = name.startswith("manyeyes_requests_") or "sum by (pool)" in target["expr"]
                assert obeys or variable not in has or (users and variable == "engine"), (name, selector)


RECORDED = {rule.name for group in recording.GROUPS for rule in group.rules}


def controllers_series() -> list[tuple[str, tuple[str, ...]]]:
    """(name of a series, its labels), with the endings that Prometheus sees."""
    return [
        (metric._name + ending, metric._labelnames)
        for metric in controller_metrics.ALL
        for ending in ("", "_total", "_bucket")
    ] + [("manyeyes_loadtest_generator_cpu_share", ())]  # a load test's own, by node-exporter


@each_panel
def test_a_panel_counts_over_ranges_that_follow_the_scrape_interval_or_are_long(panel: dict[str, Any]) -> None:
    for target in panel["targets"]:
        for found in re.findall(r"\[([^\]]+)\]", target["expr"]):
            assert found in ("$__rate_interval", "5m", "$__range:15s"), target["expr"]


@each_panel
def test_a_panels_queries_have_legends_and_letters_of_their_own(panel: dict[str, Any]) -> None:
    for key in ("legendFormat", "refId"):
        values = [target[key] for target in panel["targets"]]
        assert all(values)
        assert len(values) == len(set(values))


@each_dashboard
def test_a_dashboard_has_nothing_that_grafanas_schema_does_not_know(dashboard: dict[str, Any]) -> None:
    """Read and written by the SDK's own types, a dashboard is the same as before."""
    register_default_plugins()
    again = json.loads(json.dumps(Dashboard.from_json(dashboard), cls=JSONEncoder))
    for note in dashboard["annotations"]["list"]:  # Prometheus' own fields of an annotation
        del note["titleFormat"], note["textFormat"]
    assert again == dashboard


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


def test_each_dashboard_has_its_own_address_and_links_to_the_others() -> None:
    uids = {dashboard["uid"] for dashboard in DASHBOARDS}
    assert len(uids) == len(DASHBOARDS)
    assert all(dashboard["links"][0]["tags"] == dashboard["tags"] for dashboard in DASHBOARDS)


@each_dashboard
def test_a_dashboard_offers_each_choice_that_its_queries_use_and_no_other(dashboard: dict[str, Any]) -> None:
    expressions = " ".join(target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", []))
    used = set(re.findall(r"\$(pool|engine|gpu)\b", expressions))
    assert used == {variable["name"] for variable in dashboard["templating"]["list"]}


def test_the_timeline_names_every_state_of_the_controller() -> None:
    assert {state.value for state in EngineState if state is not EngineState.REMOTE} <= {
        name for _, name, _ in engines.STATES
    }


def test_grafana_reads_dashboards_where_compose_puts_them() -> None:
    provider = yaml.safe_load((ROOT / "monitoring/grafana/provisioning/dashboards/manyeyes.yaml").read_text())
    compose = yaml.safe_load((ROOT / "compose/monitoring.yaml").read_text())
    mounts = dict(volume.split(":")[:2] for volume in compose["services"]["grafana"]["volumes"])
    assert mounts["./monitoring/grafana/dashboards"] == provider["providers"][0]["options"]["path"]
    assert mounts["./monitoring/grafana/provisioning"] == "/etc/grafana/provisioning"
