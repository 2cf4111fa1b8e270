"""The stack for Swarm: the same engines as Compose's, files by content, and nothing that Swarm passes over."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from manyeyes.cli.config_commands import swarm_stacks
from manyeyes.config.credentials import ApiKeys
from manyeyes.config.loader import load, parse
from manyeyes.config.placement import HostGpu, Inventory, place_engines
from manyeyes.render.compose_engines import engines_yaml
from manyeyes.render.engine_container import logging_flags
from manyeyes.render.multi_node_clusters import clusters
from manyeyes.render.swarm import stack

ROOT = Path(__file__).resolve().parents[2]
PASSED_OVER = {
    "build",
    "cgroup_parent",
    "container_name",
    "depends_on",
    "devices",
    "external_links",
    "links",
    "restart",
    "security_opt",
}
"""docs.docker.com/reference/cli/docker/stack/deploy: it ignores them."""


def default(flavour: str) -> dict[str, Any]:
    return dict(yaml.safe_load(swarm_stacks(load(ROOT / "config/cluster.yaml"), ApiKeys())[f"{flavour}/stack.yaml"]))


@pytest.mark.parametrize("flavour", ["cuda", "cpu", "emulated"])
def test_pools_flags_and_images_are_composes(flavour: Any) -> None:
    gpus = (HostGpu(index=0), HostGpu(index=1)) if flavour == "cuda" else ()
    laid_out = place_engines(load(ROOT / "config/cluster.yaml"), Inventory(flavour=flavour, gpus=gpus))
    compose = yaml.safe_load(engines_yaml(laid_out))["services"]
    there = sorted(
        (
            engine.pool,
            compose[engine.name]["image"],
            compose[engine.name]["command"][: -len(logging_flags(laid_out, engine)) or None],
        )
        for engine in laid_out.started_engines
    )
    here = sorted(
        (one["labels"]["manyeyes.pool"], one["image"], one["command"][-len(flags) :])
        for one in default(flavour)["services"].values()
        if "labels" in one
        for _ in range(one["deploy"]["replicas"])
        for flags in [next(command for pool, _, command in there if pool == one["labels"]["manyeyes.pool"])]
    )
    assert here == there


@pytest.mark.parametrize("flavour", ["cuda", "cpu", "emulated"])
def test_no_service_rests_on_what_swarm_passes_over_and_each_has_limits(flavour: str) -> None:
    for name, service in default(flavour)["services"].items():
        assert not PASSED_OVER & service.keys(), name
        assert service["deploy"]["resources"]["limits"]["memory"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["logging"]["options"]["max-size"], name


def test_a_gpu_is_a_generic_resource_for_each_of_an_engines_gpus() -> None:
    services = default("cuda")["services"]
    (wanted,) = services["qwen3-vl-8b"]["deploy"]["resources"]["reservations"]["generic_resources"]
    assert wanted == {"discrete_resource_spec": {"kind": "NVIDIA-GPU", "value": 1}}
    assert "reservations" not in default("emulated")["services"]["qwen3-vl-8b"]["deploy"]["resources"]


def test_another_text_is_another_config_and_the_same_text_the_same() -> None:
    (cluster,) = clusters(parse("pools: [{name: big, model: org/Big, flavours: [emulated]}]")).values()
    own = {f"nginx/{name}": "a" for name in ("nginx.conf", "start.sh", "malloc.env")}
    own |= {
        f"manyeyes/engine/pod/{name}": "a" for name in ("pre_stop.py", "media_memory.py", "run.sh", "startup_probe.py")
    }

    def name(files: dict[str, str]) -> str:
        document = yaml.safe_load(stack(cluster, files, ApiKeys(), "..")["stack.yaml"])
        return str(document["configs"]["nginx-nginx.conf"]["name"])

    assert name(own) == name(own) != name({**own, "nginx/nginx.conf": "b"})
    assert all(len(one["name"]) <= 64 for one in default("cuda")["configs"].values())


def test_the_gateway_asks_docker_who_is_in_a_pool() -> None:
    files = swarm_stacks(load(ROOT / "config/cluster.yaml"), ApiKeys())
    pools = files["cuda/gateway/pools.conf"]
    assert "resolver 127.0.0.11 " in pools
    assert "server tasks.qwen3-vl-8b:8000 max_conns=96 max_fails=0 resolve;" in pools
    assert "syslog:server=controller:5140" in pools


def test_each_engine_of_a_node_has_its_own_cache_because_it_executes_what_is_in_it() -> None:
    assert default("cpu")["volumes"]["compile-cache"] == {"name": "cache-{{.Service.Name}}-{{.Task.Slot}}"}
