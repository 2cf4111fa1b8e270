"""Who reaches a cluster that was just started: nobody else, until its operator opens it and there is a key."""

import re
from pathlib import Path

import pytest
import yaml

from manyeyes.cli import doctor, host_info, network_access, readiness
from manyeyes.cli.config_commands import render_swarm
from manyeyes.cli.host_info import Docker
from manyeyes.cli.invocation import DEFAULT_CONFIG
from manyeyes.cli.terminal import CliError
from manyeyes.config.credentials import ApiKey, ApiKeys
from manyeyes.config.loader import load
from manyeyes.config.placement import Inventory, PlacedCluster
from manyeyes.render.compose_env import compose_settings
from tests.placed import placed

ROOT = Path(__file__).resolve().parents[2]
POOLS = "pools: [{name: a, model: org/A}]\nengines: [{name: e, pool: a, flavour: emulated}]\n"
ALICE = ApiKeys(keys=(ApiKey(name="alice", sha256="a" * 64),))
NOBODY = ApiKeys()
HOST, BRIDGE = "192.168.1.5", "172.17.0.1"


@pytest.fixture(autouse=True)
def this_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_info, "addresses", lambda: [HOST, BRIDGE, "fd00::5"])
    monkeypatch.setattr(host_info, "bridge_addresses", lambda: [BRIDGE])


def cluster(gateway: str = "") -> PlacedCluster:
    return placed(POOLS + (f"gateway: {gateway}\n" if gateway else ""))


def said(gateway: str, keys: ApiKeys, capsys: pytest.CaptureFixture[str]) -> str:
    readiness.print_next_steps(cluster(gateway), keys, DEFAULT_CONFIG, grafana=False)
    return capsys.readouterr().out


def test_the_port_is_published_on_the_loopback_address_unless_the_configuration_says_otherwise() -> None:
    assert compose_settings(cluster())["GATEWAY_ADDRESS"] == "127.0.0.1:8080"
    for file in [ROOT / "config/cluster.yaml", *sorted((ROOT / "config/examples").glob("*.yaml"))]:
        gateway = load(file).gateway
        assert gateway.requires_key(NOBODY) or not gateway.is_open, file


def test_opening_the_port_without_a_key_opens_nothing() -> None:
    assert cluster("{host: 0.0.0.0}").gateway.requires_key(NOBODY)
    assert cluster("{host: 192.168.1.5}").gateway.requires_key(NOBODY)
    assert not cluster("{host: 0.0.0.0, anonymous: true}").gateway.requires_key(NOBODY)
    assert not cluster().gateway.requires_key(NOBODY)


def test_the_first_start_says_how_to_open_it_and_that_ufw_does_not_hold(capsys: pytest.CaptureFixture[str]) -> None:
    text = said("", NOBODY, capsys)
    shown = text.partition("Only this host can connect. To open it (Docker's published ports pass ufw):\n")[2]
    key, host, up, *_ = shown.splitlines()
    assert key.endswith("manyeyes key NAME")
    assert host.strip().startswith("set gateway.host: 0.0.0.0 in ")
    assert up.endswith(" up")
    assert max(map(len, shown.splitlines()[:3])) < 80
    assert "For others" not in text


def test_an_open_cluster_names_the_address_that_others_use_and_what_is_missing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = said("{host: 0.0.0.0}", ALICE, capsys)
    assert re.findall(r"For others +(\S+)", text) == [f"http://{HOST}:8080/"]
    assert "unencrypted" in text
    assert "To open it" not in text
    assert "refused until there is a key" in said("{host: 0.0.0.0}", NOBODY, capsys)
    text = said("{host: 192.168.1.5, tls: {}, anonymous: true}", ALICE, capsys)
    assert f"https://{HOST}:8080/" in text
    assert "everyone who reaches this host can use the models" in text
    assert "unencrypted" not in text


@pytest.mark.parametrize(
    ("gateway", "found"),
    [
        ("{}", "this host only (to open it: "),
        ("{host: 0.0.0.0}", f"http://{HOST}:8080: a key is required; Docker's published ports pass ufw"),
        ("{host: 0.0.0.0, anonymous: true}", f"http://{HOST}:8080: no key is required"),
    ],
)
def test_doctor_says_the_same_and_fails_for_none_of_it(tmp_path: Path, gateway: str, found: str) -> None:
    docker = Docker(client="28.5.2", server="28.5.2", compose="2.40.3", root_dir="/")
    checks = doctor.run_checks(cluster(gateway), docker, Inventory(flavour="emulated"), True, tmp_path / "c.yaml")
    [check] = [check for check in checks if check.name == "reachable from"]
    assert check.found.startswith(found)
    assert check.remedy == ""


def test_a_swarm_which_publishes_on_every_manager_is_rendered_only_for_an_open_gateway(tmp_path: Path) -> None:
    document = yaml.safe_load((ROOT / "config/cluster.yaml").read_text())
    file = tmp_path / "cluster.yaml"
    file.write_text(yaml.safe_dump(document))
    with pytest.raises(CliError, match=r"expected 0\.0\.0\.0"):
        render_swarm(file, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_bridges_of_docker_are_no_addresses_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    lines = (
        "1: lo    inet 127.0.0.1/8 scope host lo\n"
        "2: eth0    inet 192.168.1.5/24 brd 192.168.1.255 scope global eth0\n"
        "3: docker0    inet 172.17.0.1/16 scope global docker0\n"
        "4: br-0123456789ab    inet 172.18.0.1/16 scope global br-0123456789ab\n"
    )
    monkeypatch.setattr(host_info, "_output", lambda command: lines)
    assert host_info.bridge_addresses() == ["172.17.0.1", "172.18.0.1"]


def test_a_host_whose_addresses_are_unknown_still_says_where_it_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_info, "addresses", list)
    assert network_access.public_urls(cluster("{host: 0.0.0.0}")) == ["http://0.0.0.0:8080"]
