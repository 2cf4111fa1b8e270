"""engines.yaml: what Compose is told of engines that share a GPU, and of every vLLM."""

from typing import Any

import yaml

from manyeyes.render.compose_engines import engines_yaml
from tests.placed import placed

POOLS = "pools: [{name: a, model: org/A}, {name: b, model: org/B}]\n"


def services(engines: str) -> dict[str, Any]:
    return dict(yaml.safe_load(engines_yaml(placed(f"{POOLS}engines: [{engines}]\n")))["services"])


def test_engines_that_share_a_gpu_start_one_after_the_other() -> None:
    found = services(
        "{name: x, pool: a, gpus: [0], gpu_fraction: 0.6}, {name: y, pool: b, gpus: [0], gpu_fraction: 0.4}, {name: z, pool: a, gpus: [1]}"
    )
    for name in ("x", "y"):
        assert found[name]["entrypoint"] == [
            "python3",
            "/app/manyeyes/engine/pod/one_at_a_time.py",
            "/cache/starting/0.lock",
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
    assert found["x"]["entrypoint"][2:4] == ["/cache/starting/0.lock", "/cache/starting/1.lock"]
    assert found["y"]["entrypoint"][2:4] == ["/cache/starting/1.lock", "--"]


def test_every_vllm_finds_what_bounds_its_media() -> None:
    found = services(
        "{name: x, pool: a, gpus: [0]}, {name: y, pool: b, flavour: cpu}, {name: z, pool: b, flavour: emulated}"
    )
    for name in ("x", "y"):
        assert "/app/manyeyes/engine/pod" in found[name]["environment"]["PYTHONPATH"].split(":")
        assert "/app/manyeyes/engine/pod" in [mount["target"] for mount in found[name]["volumes"]]
        assert "--middleware=media_memory.MediaRoom" in found[name]["command"]
    assert "--middleware=media_memory.MediaRoom" not in found["z"]["command"]
