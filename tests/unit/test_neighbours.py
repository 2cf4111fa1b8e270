"""What one part of the cluster reaches of another: an engine, or Alertmanager, that was broken into."""

import re
from pathlib import Path
from typing import Any

import yaml

from manyeyes.cli import secrets
from manyeyes.render.monitoring import alertmanager_mounts
from tests.placed import placed

ROOT = Path(__file__).resolve().parents[2]
ONE = "pools: [{name: a, model: org/A}]\nengines: [{name: e, pool: a, flavour: emulated}]\n"
ALERTING = """
monitoring:
  alerting:
    webhooks: [{url_file: pager.url}, {url: "http://h/"}, {url_file: pager.url, severities: [page]}]
    emails: [{to: a@example.com, sender: b@example.com, server: "m.example.com:25", user: u, password_file: mail}]
"""


def compose(file: str) -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / "compose" / file).read_text())["services"])


def test_prometheus_has_no_lifecycle_api() -> None:
    """/-/quit and /-/reload need no key, and engines and web sites that a visitor opens reach them."""
    flags = " ".join(compose("monitoring.yaml")["prometheus"]["command"])
    assert not re.search(r"web\.enable-(lifecycle|admin-api|remote-write-receiver)", flags)


def test_the_controller_is_given_the_name_of_the_one_sender_of_the_request_log() -> None:
    environment = compose("gateway.yaml")["controller"]["environment"]
    assert environment["MANYEYES_LOG_SENDERS"] == "gateway.${MANYEYES_PROJECT:-manyeyes}_cluster"


def test_only_prometheus_shares_a_network_with_alertmanager() -> None:
    """Its API needs no key, and whoever reaches it can silence alerts."""
    common = yaml.safe_load((ROOT / "compose/monitoring.yaml").read_text())["x-service"]["networks"]
    files = [file.name for file in (ROOT / "compose").glob("*.yaml")]
    networks = {name: service.get("networks", common) for file in files for name, service in compose(file).items()}
    assert {name for name, joined in networks.items() if "alerts" in joined} == {"prometheus", "alertmanager"}
    assert networks["alertmanager"] == ["alerts"]


def test_alertmanager_sees_the_files_of_its_receivers_and_no_other_secret() -> None:
    assert "secrets" not in str(compose("monitoring.yaml")["alertmanager"]["volumes"]).lower()
    mounted = yaml.safe_load(alertmanager_mounts(placed(ONE + ALERTING)))["services"]["alertmanager"]["volumes"]
    assert [(mount["source"], mount["target"], mount["read_only"]) for mount in mounted] == [
        ("${SECRETS_DIR:-./secrets}/pager.url", "/run/secrets/manyeyes/pager.url", True),
        ("${SECRETS_DIR:-./secrets}/mail", "/run/secrets/manyeyes/mail", True),
    ]
    assert yaml.safe_load(alertmanager_mounts(placed(ONE)))["services"]["alertmanager"]["volumes"] == []


def test_a_replaced_file_of_a_receiver_recreates_alertmanager(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("SECRETS_DIR", str(tmp_path))
    cluster = placed(ONE + ALERTING)
    assert secrets.identify_alerting_files(cluster) == ""
    (tmp_path / "mail").write_text("one")
    before = secrets.identify_alerting_files(cluster)
    (tmp_path / "mail.new").write_text("two")
    (tmp_path / "mail.new").rename(tmp_path / "mail")
    assert secrets.identify_alerting_files(cluster) not in ("", before)
