"""Every service of every rendered example keeps every rule, or is named below with its reason."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from manyeyes.config.loader import load, parse
from manyeyes.config.placement import DEFAULT_INVENTORY, PlacedCluster, place_engines
from manyeyes.render.compose_engines import engines_yaml

ROOT = Path(__file__).resolve().parents[2]
Service = dict[str, Any]
FETCHING = """
pools: [{name: a, model: org/A, flavours: [cuda], media: {allowed_domains: [Pictures.example.com]}}, {name: b, model: org/B}]
engines: [{name: e, pool: a, gpus: [0]}, {name: f, pool: b, gpus: [1]}]
"""
SHARED = """
gpu_sharing: mps
models: {volume: /srv/models}
pools: [{name: a, model: org/A, flavours: [cuda]}]
engines: [{name: e, pool: a, gpus: [0], gpu_fraction: 0.5}, {name: f, pool: a, gpus: [0], gpu_fraction: 0.5}]
"""


def clusters() -> Iterator[tuple[str, PlacedCluster]]:
    for path in [ROOT / "config/cluster.yaml", *sorted((ROOT / "config/examples").glob("*.yaml"))]:
        yield path.stem, place_engines(load(path), DEFAULT_INVENTORY)
    yield "fetching", place_engines(parse(FETCHING), DEFAULT_INVENTORY)
    yield "shared", place_engines(parse(SHARED), DEFAULT_INVENTORY)


def services() -> Iterator[tuple[str, Service]]:
    for path in sorted((ROOT / "compose").glob("*.yaml")):
        for name, service in (yaml.safe_load(path.read_text()).get("services") or {}).items():
            yield name, service
    for example, cluster in clusters():
        for name, service in yaml.safe_load(engines_yaml(cluster))["services"].items():
            yield f"{example}/{name}", service


SERVICES = list(services())


def role(name: str) -> str:
    """Engines have names of their operator's choosing."""
    example, _, service = name.rpartition("/")
    if not example or service in ("models", "mps", "media"):
        return service
    return "engine-as-root" if example in ("shared", "gpu-shared-by-two") else "engine"


def is_not_root(service: Service) -> bool:
    user = str(service.get("user", "root")).split(":")[0]
    return user not in ("root", "0")


def resources(service: Service) -> Service:
    return dict(service.get("deploy", {}).get("resources", {}).get("limits", {}))


def is_published_nowhere_but_on_loopback(service: Service) -> bool:
    return all(str(port).startswith("127.0.0.1:") for port in service.get("ports", []))


def mounts(service: Service) -> str:
    return repr(service.get("volumes", []))


RULES: list[tuple[str, Callable[[Service], bool], dict[str, str]]] = [
    (
        "runs as a named user that is not root",
        is_not_root,
        {
            "containers": "Docker's socket is root's; it has no capability",
            "alloy": "Docker's log files are root's; it has no capability",
            "dcgm-exporter": "NVIDIA's image runs its hostengine as root, and no GPU was there to try another user",
            "models": "hands the cache volume, which Docker makes as root's, to the engines' user",
            "mps": "its clients must be of its own user, and its volume is root's",
            "engine-as-root": "folders of the host belong to the host's users, and an MPS client runs as its server does",
        },
    ),
    ("has a read-only root", lambda one: one.get("read_only") is True, {}),
    ("drops every capability", lambda one: one.get("cap_drop") == ["ALL"], {}),
    (
        "adds no capability",
        lambda one: not one.get("cap_add"),
        {
            "models": "CHOWN, DAC_OVERRIDE, FOWNER: see above, and folders of the host",
            "engine-as-root": "DAC_OVERRIDE: folders of the host",
        },
    ),
    ("gains no privileges", lambda one: one.get("security_opt") == ["no-new-privileges:true"], {}),
    ("is not privileged", lambda one: not one.get("privileged") and one.get("pid") is None, {}),
    ("keeps Docker's seccomp profile", lambda one: "seccomp" not in repr(one.get("security_opt")), {}),
    ("has a memory limit", lambda one: bool(resources(one).get("memory")), {}),
    ("has a limit of processes", lambda one: int(resources(one).get("pids", 0)) > 0, {}),
    (
        "is not published beyond the loopback address",
        is_published_nowhere_but_on_loopback,
        {"gateway": "it is the one address of the cluster"},
    ),
    (
        "mounts no socket of Docker",
        lambda one: "docker.sock" not in mounts(one),
        {"containers": "it is the filter"},
    ),
    (
        "is not in the host's network or another container's",
        lambda one: one.get("network_mode") in (None, "none"),
        {},
    ),
    ("names the networks that it is in", lambda one: bool(one.get("networks") or one.get("network_mode")), {}),
    ("caps its logs", lambda one: "max-size" in one.get("logging", {}).get("options", {}), {}),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "holds", "exceptions"), RULES, ids=[rule for rule, *_ in RULES])
def test_every_service(rule: str, holds: Callable[[Service], bool], exceptions: dict[str, str]) -> None:
    broken = sorted({name for name, service in SERVICES if not holds(service) and role(name) not in exceptions})
    assert broken == [], rule
    needed = {role(name) for name, service in SERVICES if not holds(service)}
    assert needed == set(exceptions), "an exception that nobody needs any more"


def networks(service: Service) -> set[str]:
    return set(service.get("networks") or ())


def test_the_engines_network_holds_engines_gateway_controller_and_prometheus_only() -> None:
    inside = {role(name) for name, service in SERVICES if "cluster" in networks(service)}
    # Jaeger, where it is started: engines tell it their spans.
    assert inside == {"engine", "engine-as-root", "gateway", "controller", "prometheus", "jaeger"}


def test_no_engine_and_no_downloader_is_where_the_page_is() -> None:
    for name, service in SERVICES:
        if role(name) in ("engine", "engine-as-root", "models", "mps", "media", "containers"):
            assert "front" not in networks(service), name


@pytest.mark.parametrize(("example", "cluster"), list(clusters()), ids=[name for name, _ in clusters()])
def test_nothing_leads_out_of_the_networks_that_engines_are_in(example: str, cluster: PlacedCluster) -> None:
    document = yaml.safe_load(engines_yaml(cluster))
    for engine in cluster.started_engines:
        for network in document["services"][engine.name]["networks"]:
            assert document["networks"][network]["internal"] is True, (engine.name, network)


def test_only_engines_that_may_fetch_reach_the_way_out_and_are_told_of_it() -> None:
    fetching = yaml.safe_load(engines_yaml(place_engines(parse(FETCHING), DEFAULT_INVENTORY)))["services"]
    assert fetching["e"]["networks"] == ["cluster", "media"]
    assert fetching["e"]["environment"]["https_proxy"] == "http://media:3128"
    assert fetching["f"]["networks"] == ["cluster"]
    assert "https_proxy" not in fetching["f"]["environment"]
    assert fetching["media"]["environment"]["MEDIA_DOMAINS"] == '{"pictures.example.com": false}'
    assert (
        "media"
        not in yaml.safe_load(engines_yaml(place_engines(load(ROOT / "config/cluster.yaml"), DEFAULT_INVENTORY)))[
            "services"
        ]
    )


def test_the_rules_can_fail() -> None:
    bare: Service = {"image": "x", "ports": ["8000:8000"], "volumes": ["/var/run/docker.sock:/s"], "privileged": True}
    held = [rule for rule, holds, _ in RULES if holds(bare | {"network_mode": "host", "cap_add": ["SYS_ADMIN"]})]
    assert held == ["keeps Docker's seccomp profile", "names the networks that it is in"]
