"""What is rendered for Prometheus and Alertmanager is accepted by their own tools, for every example and with receivers."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from manyeyes.config.loader import load
from manyeyes.config.placement import DEFAULT_INVENTORY, place_engines
from manyeyes.config.validation import problems
from manyeyes.devcluster.monitored_cluster import ROOT, prometheus_program, shipped_cluster
from manyeyes.monitoring.prometheus.rules import rules
from manyeyes.render.monitoring import alertmanager_yml, prometheus_yml, rules_yml
from tests.placed import placed

CONFIGS = [ROOT / "config/cluster.yaml", *sorted((ROOT / "config/examples").glob("*.yaml"))]
POOL = "pools: [{name: big, model: m}]\nengines: [{name: gpu-0, pool: big, gpus: [0]}]\n"
TOLD = (
    POOL
    + """
monitoring:
  alerting:
    webhooks:
      - {url: "http://chat.example.com/hook", severities: [page]}
      - {url_file: pager.url}
    emails:
      - {to: ops@example.com, sender: manyeyes@example.com, server: "mail.example.com:587", user: manyeyes, password_file: mail.password}
    repeat_interval_h: 0.5
"""
)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_promtool_accepts_configuration_and_rules_of_every_example(path: Path, tmp_path: Path) -> None:
    cluster = place_engines(load(path), DEFAULT_INVENTORY)
    (tmp_path / "prometheus.yml").write_text(prometheus_yml(cluster))
    (tmp_path / "rules.yml").write_text(rules_yml(cluster))
    told = subprocess.run(
        [prometheus_program("promtool"), "check", "config", "--lint=all", "--lint-fatal", tmp_path / "prometheus.yml"],
        capture_output=True,
        text=True,
    )
    assert told.returncode == 0, told.stdout + told.stderr


@pytest.mark.parametrize("text", [POOL, TOLD], ids=["nobody", "webhooks and mail"])
def test_amtool_accepts_what_says_who_is_told(text: str, tmp_path: Path) -> None:
    (tmp_path / "alertmanager.yml").write_text(alertmanager_yml(placed(text)))
    told = subprocess.run(
        [prometheus_program("amtool"), "check-config", tmp_path / "alertmanager.yml"], capture_output=True, text=True
    )
    assert told.returncode == 0, told.stdout + told.stderr


def receivers(text: str) -> dict[str, Any]:
    return {one["name"]: one for one in yaml.safe_load(alertmanager_yml(placed(text)))["receivers"]}


def test_secrets_are_named_and_never_written() -> None:
    page = receivers(TOLD)["page"]
    assert page["webhook_configs"][1]["url_file"] == "/run/secrets/manyeyes/pager.url"
    assert page["email_configs"][0]["auth_password_file"] == "/run/secrets/manyeyes/mail.password"
    assert "auth_password" not in page["email_configs"][0]


def test_a_receiver_gets_what_it_is_for() -> None:
    told = receivers(TOLD)
    assert [one.get("url") for one in told["page"]["webhook_configs"]] == ["http://chat.example.com/hook", None]
    assert [one.get("url") for one in told["ticket"]["webhook_configs"]] == [None]


def test_a_webhook_without_a_place_to_go_is_a_problem() -> None:
    cluster = placed(POOL).model_copy(
        update={"monitoring": placed(POOL).monitoring.model_validate({"alerting": {"webhooks": [{}]}})}
    )
    assert list(problems(cluster)) == ["monitoring.alerting.webhooks[1]: expected either url or url_file, got neither"]


def durations(speed: float, scrape_interval_s: int) -> dict[str, str]:
    cluster = shipped_cluster()
    monitoring = cluster.monitoring.model_copy(update={"alert_speed": speed, "scrape_interval_s": scrape_interval_s})
    document = rules(cluster.model_copy(update={"monitoring": monitoring}))
    by_name = {rule.get("record") or rule["alert"]: rule for group in document["groups"] for rule in group["rules"]}
    errors = by_name["pool:errors:ratio_rate5m"]["expr"]
    return {"range": errors.rsplit("[", 1)[1].split("]")[0], "for": by_name["EngineDown"]["for"]}


def test_a_drill_looks_back_on_less_and_waits_less_by_the_same_rules() -> None:
    assert durations(1, 5)["for"] == "2m"
    assert durations(60, 1) == {"range": "5s", "for": "2s"}
    assert durations(600, 1) == {"range": "4s", "for": "200ms"}  # four scrapes at least


def test_figures_of_gpus_are_there_where_engines_run_on_them() -> None:
    names = {group["name"] for group in rules(shipped_cluster())["groups"]}
    emulated = place_engines(load(ROOT / "config/examples/emulated.yaml"), DEFAULT_INVENTORY)
    assert {"gpus", "gpu_alerts"} <= names
    assert not {"gpus", "gpu_alerts"} & {group["name"] for group in rules(emulated)["groups"]}
    assert "job_name: gpu\n" in prometheus_yml(shipped_cluster())
    assert "job_name: gpu\n" not in prometheus_yml(emulated)
