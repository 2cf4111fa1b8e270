"""engines.yaml: what Compose is told of engines that share a GPU, and of every vLLM."""

from typing import Any

import yaml

from manyeyes.render.compose_engines import engines_yaml
from tests.placed import placed

POOLS = "pools: [{name: a, model: org/A}, {name: b, model: org/B}]\n"


def services(engines: str, more: str = "") -> dict[str, Any]:
    return dict(yaml.safe_load(engines_yaml(placed(f"{POOLS}engines: [{engines}]\n{more}")))["services"])


def test_engines_that_share_a_gpu_start_one_after_the_other() -> None:
    found = services(
        "{name: x, pool: a, gpus: [0], gpu_fraction: 0.6}, {name: y, pool: b, gpus: [0], gpu_fraction: 0.4}, {name: z, pool: a, gpus: [1]}"
    )
    for name in ("x", "y"):
        assert found[name]["entrypoint"] == [
            "python3",
            "/app/manyeyes/engine/pod/one_at_a_time.py",
            "/starting/0.lock",
            "--",
            "vllm",
            "serve",
        ]
        # No other engine's failure holds it up, and starting it does not start the other one.
        assert list(found[name]["depends_on"]) == ["models"]
    assert "entrypoint" not in found["z"]


def test_engines_that_overlap_in_one_gpu_only_wait_for_that_one_too() -> None:
    found = services(
        "{name: x, pool: a, gpus: [1, 0], gpu_fraction: 0.5}, {name: y, pool: b, gpus: [1], gpu_fraction: 0.5}"
    )
    assert found["x"]["entrypoint"][2:4] == ["/starting/0.lock", "/starting/1.lock"]
    assert found["y"]["entrypoint"][2:4] == ["/starting/1.lock", "--"]


def test_every_vllm_finds_what_bounds_its_media() -> None:
    found = services(
        "{name: x, pool: a, gpus: [0]}, {name: y, pool: b, flavour: cpu}, {name: z, pool: b, flavour: emulated}"
    )
    for name in ("x", "y"):
        assert "/app/manyeyes/engine/pod" in found[name]["environment"]["PYTHONPATH"].split(":")
        assert "/app/manyeyes/engine/pod" in [mount["target"] for mount in found[name]["volumes"]]
        assert "--middleware=media_memory.MediaRoom" in found[name]["command"]
    assert "--middleware=media_memory.MediaRoom" not in found["z"]["command"]


def mounts_at(service: dict[str, Any], target: str) -> list[tuple[str, str]]:
    mounts = [mount for mount in service["volumes"] if mount["target"] == target]
    return [(mount["source"], mount.get("volume", {}).get("subpath", "")) for mount in mounts]


SHARING = (
    "{name: x, pool: a, gpus: [0], gpu_fraction: 0.6}, {name: y, pool: b, gpus: [0], gpu_fraction: 0.4}, "
    "{name: z, pool: a, gpus: [1]}, {name: c, pool: b, flavour: cpu}"
)


def test_no_engine_can_write_what_another_executes() -> None:
    """Triton, Inductor and vLLM load code from their caches, and Python from HOME."""
    found = services(SHARING)
    assert {name: mounts_at(found[name], "/cache") for name in "xyzc"} == {
        name: [("compile-cache", f"engines/{name}")] for name in "xyzc"
    }
    writable = [
        (mount["source"], mount.get("volume", {}).get("subpath", ""))
        for name in "xyzc"
        for mount in found[name]["volumes"]
        if not mount.get("read_only")
    ]
    shared = {mount for mount in writable if writable.count(mount) > 1}
    assert shared == {("compile-cache", "locks")}
    assert [name for name in "xyzc" if mounts_at(found[name], "/starting")] == ["x", "y"]


def test_caches_in_a_folder_of_the_host_are_apart_too_and_those_of_another_cluster_are_elsewhere() -> None:
    found = services(SHARING, "name: mine\nmodels: {cache_volume: /srv/cache}\n")
    assert mounts_at(found["x"], "/cache") == [("/srv/cache/mine/engines/x", "")]
    assert mounts_at(found["z"], "/cache") == [("/srv/cache/mine/engines/z", "")]
    assert mounts_at(found["models"], "/cache") == [("/srv/cache/mine", "")]
