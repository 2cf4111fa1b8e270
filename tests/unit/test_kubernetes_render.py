"""The tree for Kubernetes: the same engines as Compose's, and what cannot be had there is said."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from manyeyes.config.cluster import Cluster
from manyeyes.config.loader import load, parse
from manyeyes.config.placement import HostGpu, Inventory, PlacementError, place_engines
from manyeyes.config.pools import Flavour
from manyeyes.render.compose_engines import engines_yaml
from manyeyes.render.engine_container import logging_environment, logging_flags
from manyeyes.render.kubernetes import kustomize, models
from manyeyes.render.kubernetes.kustomize import tree
from manyeyes.render.kubernetes.models import CODE
from manyeyes.render.multi_node_clusters import clusters, group_engines
from tests.placed import placed

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = [ROOT / "config/cluster.yaml", *sorted((ROOT / "config/examples").glob("*.yaml"))]
NOT_THERE = {
    "scaled": "pools[assistant].scaling.actuator: expected containers, got sleep",
    "with-foreign-endpoint": "engines[captions-0].endpoint requires the adapter",
}


def fitting() -> list[Path]:
    return [path for path in EXAMPLES if path.stem not in NOT_THERE]


def services(cluster: Cluster, flavour: str) -> dict[str, Any]:
    """Compose's, on a host with the same GPUs."""
    names: dict[str, Flavour] = {"cuda": "cuda", "cpu": "cpu", "emulated": "emulated"}
    gpus = tuple(HostGpu(index=index) for index in range(cluster.kubernetes.gpus)) if flavour == "cuda" else ()
    inventory = Inventory(flavour=names.get(flavour, "cuda"), gpus=gpus)
    laid_out = place_engines(cluster, inventory)
    started = yaml.safe_load(engines_yaml(laid_out))["services"]
    for engine in laid_out.started_engines:
        # How Compose's engines write their logs is left to the cluster's own way there.
        service = started[engine.name]
        told = len(logging_flags(laid_out, engine))
        service["command"] = service["command"][: len(service["command"]) - told]
        for name in logging_environment(laid_out, engine):
            del service["environment"][name]
    return {
        name: one for name, one in started.items() if "labels" in one and "stand-ins" not in one.get("profiles", [])
    }


def templates(files: dict[str, str], flavour: str) -> list[tuple[int, dict[str, Any], dict[str, Any]]]:
    """(how many, labels, container) of the engines' pods."""
    found = yaml.safe_load_all(files[f"engines/{flavour}/pools.yaml"])
    specs = [one["spec"] for one in found if one["kind"] == "Deployment"]
    pods = [(spec["replicas"], spec["template"]) for spec in specs]
    return [(count, pod["metadata"]["labels"], pod["spec"]["containers"][0]) for count, pod in pods]


@pytest.mark.parametrize("config", fitting(), ids=lambda path: path.stem)
def test_pools_flags_images_and_settings_are_composes_but_mps_and_those_of_a_hosts_env_file(config: Path) -> None:
    cluster = load(config)
    files = tree(cluster)
    for flavour in clusters(cluster):
        compose = services(cluster, flavour)
        pods = templates(files, flavour)
        here = sorted(
            (labels["manyeyes.pool"], container["image"], container["args"])
            for count, labels, container in pods
            for _ in range(count)
        )
        assert here == sorted(
            (one["labels"]["manyeyes.pool"], one["image"], one["command"]) for one in compose.values()
        )
        for _, _, container in pods:
            found = {each["name"]: each["value"] for each in container["env"]}
            like = next(each for each in compose.values() if each["command"] == container["args"])
            wanted = {
                name: value
                for name, value in like["environment"].items()
                if not value.startswith("${") and "_MPS_" not in name
            }
            assert wanted.items() <= found.items()


@pytest.mark.parametrize("name", NOT_THERE)
def test_what_kubernetes_cannot_run_is_refused_by_name(name: str) -> None:
    with pytest.raises(PlacementError) as refused:
        tree(load(ROOT / f"config/examples/{name}.yaml"))
    assert NOT_THERE[name] in str(refused.value)


def test_every_problem_is_told_at_once() -> None:
    text = """
    pools: [{name: 8b, model: /data/model}]
    engines: [{name: one, pool: 8b, address: "10.0.0.1:8000", flavour: cuda}]
    """
    with pytest.raises(PlacementError) as refused:
        tree(parse(text))
    assert len(str(refused.value).splitlines()) == 3


def test_engines_that_take_unequal_numbers_have_a_service_each_and_nginx_knows_both() -> None:
    text = """
    pools: [{name: big, model: org/Big}]
    engines:
      - {name: a, pool: big, gpus: [0], gpu_memory_gb: 24}
      - {name: b, pool: big, gpus: [1], gpu_memory_gb: 24}
      - {name: c, pool: big, gpus: [2], gpu_memory_gb: 80}
    """
    cluster = placed(text)
    files = tree(cluster)
    found = list(yaml.safe_load_all(files["engines/listed/pools.yaml"]))
    assert [one["metadata"]["name"] for one in found if one["kind"] == "Service"] == ["big", "big-c512", "big-c96"]
    assert [(shape.name, shape.count) for shape in group_engines(clusters(cluster)["listed"])] == [
        ("big", 2),
        ("big-2", 1),
    ]
    pools = files["engines/listed/gateway/pools.conf"]
    assert "server big-c512.manyeyes.svc.cluster.local:8000 max_conns=512 max_fails=0 resolve;" in pools
    assert "server big-c96.manyeyes.svc.cluster.local:8000 max_conns=96 max_fails=0 resolve;" in pools
    assert files["keda/scaled-objects.yaml"].count("kind: ScaledObject") == 0, (
        "a pool of unequal engines stays as it is"
    )


def test_the_controllers_configuration_is_the_cluster_itself_and_can_be_read() -> None:
    for config in fitting():
        for flavour, cluster in clusters(load(config)).items():
            told = placed(tree(load(config))[f"engines/{flavour}/controller/cluster.yaml"])
            assert told.engines == cluster.engines
            assert [pool.name for pool in told.pools] == [pool.name for pool in cluster.pools]
            assert not told.controller.containers
            assert all(pool.scaling is None for pool in told.pools)


def test_scaling_of_a_pool_is_kedas() -> None:
    text = """
    pools:
      - name: big
        model: org/Big
        scaling: {min: 2, max: 9, target: {in_flight: 7, p95_s: 3}, scale_down: {window_s: 900, step: 2}}
    """
    (scaled,) = yaml.safe_load_all(tree(parse(text))["keda/scaled-objects.yaml"])
    spec = scaled["spec"]
    assert (spec["minReplicaCount"], spec["maxReplicaCount"]) == (2, 9)
    thresholds = {trigger["name"]: trigger["metadata"]["threshold"] for trigger in spec["triggers"]}
    assert thresholds == {"in-flight": "7", "queue": "4", "hidden-queue": "4", "p95": "3"}
    down = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]["scaleDown"]
    assert down == {
        "stabilizationWindowSeconds": 900,
        "policies": [{"type": "Pods", "value": 2, "periodSeconds": 120}],
    }


def test_the_download_job_has_another_name_when_it_has_other_work() -> None:
    def name(model: str) -> str:
        (cluster,) = clusters(parse(f"pools: [{{name: big, model: {model}, flavours: [cuda]}}]")).values()
        return str(models.storage(cluster)[1]["metadata"]["name"])

    assert name("org/One") == name("org/One") != name("org/Two")


def test_the_code_of_the_download_is_what_its_config_map_holds() -> None:
    generators = yaml.safe_load((ROOT / "manyeyes/engine/kustomization.yaml").read_text())["configMapGenerator"]
    files = next(one["files"] for one in generators if one["name"] == "engine-download")
    in_map = {key: f"manyeyes/engine/{path or key}" for key, _, path in (each.partition("=") for each in files)}
    assert in_map == CODE
    tiny = {
        f"manyeyes/engine/tiny/{path.name}"
        for path in (ROOT / "manyeyes/engine/tiny").glob("*.*")
        if path.suffix in (".py", ".jinja")
    }
    assert tiny <= set(CODE.values())


def test_remote_pools_and_media_open_just_the_way_out_that_they_need() -> None:
    text = """
    pools:
      - {name: big, model: org/Big, fallback: far, media: {allowed_domains: [pictures.example.org]}}
      - {name: far, model: far-model, remote: {url: "https://api.example.com:8443/v1"}}
    models: {offline: true}
    """
    found = {
        one["metadata"]["name"]: one["spec"]
        for one in yaml.safe_load_all(tree(parse(text))["engines/cuda/network.yaml"])
    }
    assert set(found) == {"gateway-to-pools-elsewhere", "media-of-big"}
    (rule,) = found["gateway-to-pools-elsewhere"]["egress"]
    assert rule["ports"] == [{"protocol": "TCP", "port": 8443}]
    assert "169.254.0.0/16" in rule["to"][0]["ipBlock"]["except"]


def test_values_for_production_stack_start_the_same_engines() -> None:
    cluster = clusters(load(ROOT / "config/cluster.yaml"))["cuda"]
    compose = services(load(ROOT / "config/cluster.yaml"), "cuda")
    told = {one["name"]: one for one in kustomize.production_stack_values(cluster)["servingEngineSpec"]["modelSpec"]}
    for engine in compose.values():
        one = told[engine["labels"]["manyeyes.pool"]]
        assert f"{one['repository']}:{one['tag']}" == engine["image"]
        own = ["--host=0.0.0.0", "--port=8000"]
        theirs = [flag for flag in engine["command"] if not flag.startswith("--middleware=media_memory.")]
        assert [one["modelURL"], *own, *one["vllmConfig"]["extraArgs"]] == theirs
        assert one["vllmConfig"]["enablePrefixCaching"], "left out, the chart switches it off"


def test_the_production_stacks_engines_want_no_file_of_ours_and_have_every_limit_of_vllms_own() -> None:
    cluster = clusters(load(ROOT / "config/cluster.yaml"))["cuda"]
    for model in kustomize.production_stack_values(cluster)["servingEngineSpec"]["modelSpec"]:
        assert not any("media_memory" in flag for flag in model["vllmConfig"]["extraArgs"])
        given = {one["name"]: one["value"] for one in model["env"]}
        assert given["VLLM_MAX_IMAGE_PIXELS"] == "50000000"
        assert "VLLM_MEDIA_CONNECTOR" not in given
        assert not any(name.startswith("MANYEYES_") for name in given)


@pytest.mark.parametrize("flavour", ["cuda", "cpu"])
def test_every_pods_vllm_finds_what_bounds_its_media(flavour: str) -> None:
    text = tree(load(ROOT / "config/cluster.yaml"))[f"engines/{flavour}/pools.yaml"]
    assert "--middleware=media_memory.MediaRoom" in text
    assert "name: PYTHONPATH\n          value: /manyeyes" in text
    assert "pod/media_memory.py" in (ROOT / "manyeyes/engine/kustomization.yaml").read_text()
