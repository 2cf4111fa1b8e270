"""Each alert, on made-up figures, by Prometheus' own promtool: when it fires and when it stays silent.

cases/NAME.yaml holds what each is asked: series in promtool's notation at one sample every 15 s, the moment, and what fires then.
"""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_group

from manyeyes.cli.__main__ import app
from manyeyes.devcluster.monitored_cluster import ROOT, prometheus_program, shipped_cluster
from manyeyes.monitoring.prometheus.alerts import ALERTS
from manyeyes.monitoring.prometheus.recording import AlertRule
from manyeyes.monitoring.prometheus.rules import rules

CASES = ROOT / "tests/prometheus/cases"
RUNBOOKS = ROOT / "docs/runbooks"
each_alert = pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)


def cases(alert: AlertRule) -> list[dict[str, Any]]:
    return list(yaml.safe_load((CASES / f"{alert.name}.yaml").read_text()))


def as_promtools(alert: AlertRule, case: dict[str, Any]) -> dict[str, Any]:
    fires = [
        {
            "exp_labels": {"severity": alert.severity, **one["labels"]},
            "exp_annotations": {"summary": one["summary"], "runbook_url": f"docs/runbooks/{alert.name}.md"},
        }
        for one in case.get("fires", ())
    ]
    return {
        "name": f"{alert.name} {case['it']}",
        "interval": "15s",
        "external_labels": {"cluster": "manyeyes"},
        "input_series": [{"series": series, "values": values} for series, values in case["series"].items()],
        "alert_rule_test": [{"eval_time": case["at"], "alertname": alert.name, "exp_alerts": fires}],
    }


def only(document: dict[str, Any], alert: str) -> dict[str, Any]:
    """The rules without those that this alert does not go by: two hours of all of them take seconds."""
    by_name = {rule.get("record") or rule["alert"]: rule for group in document["groups"] for rule in group["rules"]}
    wanted, unread = {alert}, [alert]
    while unread:
        found = set(re.findall(r"\b[a-z_]+:\w+:\w+", by_name[unread.pop()]["expr"])) - wanted
        unread += found & by_name.keys()
        wanted |= found
    groups = [
        {**group, "rules": [rule for rule in group["rules"] if (rule.get("record") or rule["alert"]) in wanted]}
        for group in document["groups"]
    ]
    return {"groups": [group for group in groups if group["rules"]]}


def promtool_test(folder: Path, alert: AlertRule, asked: list[dict[str, Any]]) -> subprocess.CompletedProcess[str]:
    (folder / "rules.yml").write_text(yaml.safe_dump(only(rules(shipped_cluster()), alert.name)))
    document = {"rule_files": ["rules.yml"], "evaluation_interval": "15s", "tests": asked}
    (folder / "cases.yml").write_text(yaml.safe_dump(document, allow_unicode=True))
    return subprocess.run(
        [prometheus_program("promtool"), "test", "rules", "cases.yml"], cwd=folder, capture_output=True, text=True
    )


@each_alert
def test_an_alert_fires_when_it_should_and_is_silent_otherwise(alert: AlertRule, tmp_path: Path) -> None:
    told = promtool_test(tmp_path, alert, [as_promtools(alert, case) for case in cases(alert)])
    assert told.returncode == 0, told.stdout + told.stderr


@each_alert
def test_an_alert_has_a_case_that_fires_and_one_that_is_silent(alert: AlertRule) -> None:
    kinds = {bool(case.get("fires")) for case in cases(alert)}
    assert kinds == {True, False}
    assert all(case["it"].startswith("fires" if case.get("fires") else "is silent") for case in cases(alert))


def test_a_case_can_fail(tmp_path: Path) -> None:
    alert = ALERTS[0]
    told = promtool_test(tmp_path, alert, [as_promtools(alert, {**case, "fires": []}) for case in cases(alert)])
    assert told.returncode != 0
    assert "16.67%" in told.stdout + told.stderr


def test_no_case_is_left_of_an_alert_that_is_gone() -> None:
    assert {file.stem for file in CASES.glob("*.yaml")} == {alert.name for alert in ALERTS}


@each_alert
def test_an_alert_says_in_a_sentence_which_pool_or_engine_it_is_about(alert: AlertRule) -> None:
    assert alert.summary.endswith(".")
    if "$externalLabels" in alert.summary:
        assert re.search(r"\b(pools?|engines?)\b", alert.summary)
    else:
        assert re.search(r"\$labels\.(pool|engine|gpu)\b", alert.summary)


COMMANDS = set(get_group(app).commands)


@each_alert
def test_an_alert_has_a_runbook_with_what_it_means_and_what_to_do(alert: AlertRule) -> None:
    page = (RUNBOOKS / f"{alert.name}.md").read_text()
    assert page.startswith(f"# {alert.name}\n")
    headings = re.findall(r"^## (.+)$", page, re.MULTILINE)
    assert headings == ["Meaning", "Impact", "Diagnosis", "Mitigation"]
    assert all(part.strip() for part in re.split(r"^## .+$", page, flags=re.MULTILINE))


@each_alert
def test_a_runbook_names_only_commands_figures_and_pages_that_exist(alert: AlertRule) -> None:
    page = (RUNBOOKS / f"{alert.name}.md").read_text()
    targets = set(re.findall(r"^\.PHONY: (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z0-9-]+)", page)) <= targets
    assert set(re.findall(r"`manyeyes ([a-z-]+)", page)) <= COMMANDS
    for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page):
        assert (RUNBOOKS / link).exists(), link
    recorded = {
        rule["record"] for group in rules(shipped_cluster())["groups"] for rule in group["rules"] if "record" in rule
    }
    assert set(re.findall(r"\b(?:pool|pool_engine|gpu|cluster):[a-z_0-9]+:[a-z_0-9]+", page)) <= recorded


def test_no_runbook_is_left_of_an_alert_that_is_gone() -> None:
    assert {file.stem for file in RUNBOOKS.glob("*.md")} - {"README"} == {alert.name for alert in ALERTS}
