"""cluster.yaml: what is accepted, and how every problem is told."""

import subprocess
import sys
from pathlib import Path

import pytest

from manyeyes.config.cluster import Cluster
from manyeyes.config.loader import ConfigError, load, parse
from manyeyes.config.placement import DEFAULT_INVENTORY, HostGpu, Inventory, PlacementError, distribute, place_engines
from manyeyes.config.scaling import ScheduledEngines
from manyeyes.render.compose_env import compose_env
from tests.placed import placed

ROOT = Path(__file__).resolve().parents[2]
REMOTE = "pools: [{name: a, model: org/A}, {name: r, model: m, remote: {url: 'https://api.example.com/v1'}}]\n"
TWO = "pools: [{name: a, model: org/A}, {name: b, model: org/B}]\n"


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    return caught.value.problems


def gpus(count: int, memory_gb: float = 24) -> Inventory:
    return Inventory(gpus=tuple(HostGpu(index=number, memory_gb=memory_gb) for number in range(count)))


@pytest.mark.parametrize(
    "path", [ROOT / "config/cluster.yaml", *sorted((ROOT / "config/examples").glob("*.yaml"))], ids=lambda p: p.stem
)
def test_every_shipped_configuration_is_right(path: Path) -> None:
    place_engines(load(path), DEFAULT_INVENTORY)
    assert {pool.media.images_per_prompt for pool in load(path).pools} == {16}, "the pictures of a long chat"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("pools: [{name: a, model: m}]\nflavor: cpu", "flavor is not a setting; did you mean flavour"),
        ("pools: [{name: a, model: m, max_len: 3}]", "pools[a].max_len is not a setting"),
        ("pools: [{name: a, model: m}]\nengines: [{name: gpu-1, pool: a, gpus: one}]", "engines[gpu-1].gpus: expected a list of GPU numbers, got 'one'"),
        ("pools: [{name: a, model: m}]\nengines: some", "engines: expected 'auto' or a list of engines, got 'some'"),
        ("pools: [{name: a}]", "pools[a].model is missing"),
        ("pools: [{name: A_, model: m}]", "pools[A_].name: expected a name of 1 to 40 lowercase letters, digits and hyphens"),
        ("pools: []", "pools: expected at least 1 item, got"),
        ("", "expected sections such as `pools:`, got nothing"),
        ("- a", "expected sections such as `pools:`, got a list"),
        ("a: [", "line 1, column"),
        ("pools: [{name: a, model: m}]\nname: x\nname: y", "line 3, column 1: duplicate key 'name'"),
        (TWO + "engines: [{name: e, pool: c, gpus: [0]}]", "engines[e].pool: expected the name of a pool, got 'c'; the pools are a, b"),
        ("pools: [{name: a, model: m, fallback: z}]", "pools[a].fallback: expected the name of a pool, got 'z'; the pools are a"),
        ("pools: [{name: a, model: m, fallback: b}, {name: b, model: n, fallback: a}]", "pools[a].fallback makes a cycle: a -> b -> a"),
        ("pools: [{name: a, model: m}, {name: a, model: n}]", "pools has 2 entries named 'a'"),
        ("pools: [{name: a, model: m, aliases: [b]}, {name: b, model: n}]", "pools[a] and pools[b] both use the name 'b'"),
        (TWO + "engines: [{name: e, pool: a, gpus: [1]}, {name: f, pool: b, gpus: [1]}]", "engines[e] and engines[f] both use all of GPU 1"),
        (TWO + "engines: [{name: e, pool: a, gpus: [1], gpu_fraction: 0.6}, {name: f, pool: b, gpus: ['1'], gpu_fraction: 0.6}]", "engines[e] and engines[f] together use 1.20 of GPU 1"),
        (TWO + "engines: [{name: e, pool: a}]", "engines[e].gpus: expected at least one GPU for flavour cuda"),
        (TWO + "engines: [{name: e, pool: a, flavour: cpu, gpus: [0]}]", "engines[e].gpus must be empty for flavour cpu"),
        (TWO + "engines: [{name: e, pool: a, gpus: [0, 1], tensor_parallel: 4}]", "engines[e].tensor_parallel is 4 but the engine has 2 GPU(s)"),
        (TWO + "engines: [{name: e, pool: a, gpus: [0, 0]}]", "engines[e].gpus lists the same GPU twice"),
        (TWO + "engines: [{name: e, pool: a, address: 'h:1', gpus: [0]}]", "engines[e] has an address, so it already runs"),
        (TWO + "gateway: {port: 9090}", "gateway.port and monitoring.prometheus_port are both 9090"),
        (TWO + "network: {controller_ip: 10.0.0.1}", "network.controller_ip 10.0.0.1 is outside network.subnet 10.213.77.0/24"),
        (TWO + "network: {controller_ip: 10.213.77.200}", "is in 10.213.77.128/25, from which Docker assigns addresses"),
        (TWO + "shutdown: {drain_s: 30, grace_s: 30}", "shutdown.grace_s is 30 and must exceed shutdown.drain_s 30"),
        ("pools: [{name: a, model: m, media: {max_decoded_pixels: 10}}]", "pools[a].media.max_decoded_pixels"),
        ("pools: [{name: a, model: m, max_model_len: 9000, media: {max_pixels: 9000000, max_decoded_pixels: 8000000}}]", "pools[a].media.max_decoded_pixels 8000000 is below max_pixels 9000000"),
        ("pools: [{name: a, model: m, media: {max_request_pixels: 40000000}}]", "pools[a].media.max_request_pixels 40000000 is below max_decoded_pixels 50000000"),
        ("pools: [{name: a, model: m, fallback: b}, {name: b, model: n, media: {images_per_prompt: 4}}]", "pools[b].media.images_per_prompt is 4, but pools[a], which falls back to it, accepts 16; set at least 16 for b"),
        ("pools: [{name: a, model: m, fallback: b}, {name: b, model: n, media: {videos_per_prompt: 0}}]", "pools[b].media.videos_per_prompt is 0, but pools[a], which falls back to it, accepts 1; set at least 1 for b"),
        ("pools: [{name: a, model: m, media: {min_pixels: 9000, max_pixels: 2000}}]", "pools[a].media.min_pixels 9000 exceeds max_pixels 2000"),
        ("pools: [{name: a, model: m, vllm_flags: ['--port=1']}]", "pools[a].vllm_flags sets --port, which ManyEyes sets itself"),
        (TWO + "auto: [{pool: a}, {pool: c}]", "auto[2].pool: expected the name of a pool, got 'c'; the pools are a, b"),
        ("pools: [{name: auto, model: m}]", "pools[auto] uses the name 'auto', which is reserved for the routing rules"),
        ("pools: [{name: a, model: m, aliases: [auto]}]", "pools[a] uses the name 'auto', which is reserved for the routing rules"),
        (REMOTE + "engines: [{name: e, pool: r, gpus: [0]}]", "pools[r] is remote, so it cannot have engines"),
        ("pools: [{name: r, model: tiny, remote: {url: 'https://api.example.com/v1'}}]", "pools[r].model: expected the model name at api.example.com, got 'tiny'"),
        ("pools: [{name: r, model: /srv/m, remote: {url: 'https://api.example.com/v1'}}]", "pools[r].model: expected the model name at api.example.com, got '/srv/m'"),
        ("pools: [{name: r, model: m, remote: {url: 'ftp://api.example.com'}}]", "pools[r].remote.url: expected an address such as https://api.example.com/v1, got 'ftp://api.example.com'"),
        ("pools: [{name: r, model: m, remote: {url: 'https://api.example.com/v1', key_file: ../key}}]", "pools[r].remote.key_file: expected a file name without a folder, got '../key'"),
        ("pools: [{name: a, model: m, vllm_flags: ['seed=1']}]", "pools[a].vllm_flags: expected '--flag' or '--flag=value', got 'seed=1'"),
    ],
)  # fmt: skip
def test_a_problem_is_told_in_one_sentence_with_its_place(text: str, said: str) -> None:
    found = problems(text)
    assert len(found) == 1, found
    assert said in found[0]


def test_all_problems_are_told_at_once_fields_and_rules_alike() -> None:
    text = """
pools:
  - {name: a, model: org/A, max_model_length: 5}
  - {name: b, model: org/B, fallback: nowhere}
engines:
  - {name: gpu-1, pool: a, gpus: [1]}
  - {name: gpu-2, pool: b, gpus: [1]}
  - {name: gpu-3, pool: b, gpus: one}
"""
    found = problems(text)
    assert [problem.split(" ")[0].rstrip(":") for problem in found] == [
        "pools[a].max_model_length", "engines[gpu-3].gpus", "pools[b].fallback", "engines[gpu-1]",
    ]  # fmt: skip


def test_the_command_prints_every_problem_and_ends_with_2(tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text("pools: [{name: a, model: m, fallback: z}]\ngateway: {port: 9090}\n")
    ended = subprocess.run(
        [sys.executable, "-m", "manyeyes.cli", "check-config", file], capture_output=True, text=True, cwd=ROOT
    )
    assert ended.returncode == 2
    assert ended.stderr.splitlines() == [
        f"{file}: pools[a].fallback: expected the name of a pool, got 'z'; the pools are a",
        f"{file}: gateway.port and monitoring.prometheus_port are both 9090",
    ]


def test_a_missing_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"does not exist\. Copy a file of config/examples/ there"):
        load(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("places", "counts"), [(1, [1, 0]), (2, [1, 1]), (3, [2, 1]), (4, [3, 1]), (8, [6, 2]), (16, [12, 4])]
)
def test_gpus_are_dealt_by_weight_and_every_pool_gets_one_while_they_last(places: int, counts: list[int]) -> None:
    assert distribute(places, [3, 1]) == counts


def test_the_shipped_configuration_lays_out_one_engine_per_gpu() -> None:
    cluster = place_engines(load(ROOT / "config/cluster.yaml"), gpus(3, memory_gb=47.5))
    assert [(engine.name, engine.pool, engine.gpus) for engine in cluster.engines] == [
        ("gpu-0", "qwen3-vl-8b", ("0",)),
        ("gpu-1", "qwen3-vl-8b", ("1",)),
        ("gpu-2", "qwen3-vl-4b", ("2",)),
    ]
    assert {engine.gpu_memory_gb for engine in cluster.engines} == {47.5}


def test_on_one_gpu_only_the_first_pool_is_served_and_its_fallback_is_dropped() -> None:
    cluster = place_engines(load(ROOT / "config/cluster.yaml"), gpus(1))
    assert [pool.name for pool in cluster.served_pools] == ["qwen3-vl-8b"]
    assert cluster.served_pools[0].fallback is None


@pytest.mark.parametrize(
    ("missing", "served"), [((), "qwen3-vl-2b"), (("Qwen/Qwen3-VL-2B-Instruct",), "qwen3-vl-tiny")]
)
def test_without_a_gpu_the_small_model_is_served_or_the_tiny_one(missing: tuple[str, ...], served: str) -> None:
    cluster = place_engines(load(ROOT / "config/cluster.yaml"), Inventory(flavour="cpu", missing_models=missing))
    assert [(engine.name, engine.pool) for engine in cluster.engines] == [("cpu-0", served), ("cpu-1", served)]


def test_no_gpu_for_cuda_says_what_to_try() -> None:
    with pytest.raises(PlacementError, match="Try FLAVOUR=cpu or FLAVOUR=emulated"):
        place_engines(load(ROOT / "config/cluster.yaml"), Inventory(flavour="cuda"))


def test_no_pool_for_a_flavour_says_what_to_add() -> None:
    with pytest.raises(PlacementError, match="Add cpu to the `flavours` of a pool"):
        place_engines(parse(TWO), Inventory(flavour="cpu"))


def test_a_listed_engine_takes_the_memory_of_the_gpu_it_names_by_uuid() -> None:
    uuid = "GPU-0a1b2c3d-0000-0000-0000-000000000001"
    cluster: Cluster = parse(TWO + f"engines: [{{name: e, pool: a, gpus: ['{uuid}']}}]")
    laid_out = place_engines(cluster, Inventory(gpus=(HostGpu(index=0, uuid=uuid, memory_gb=80),)))
    assert laid_out.engines[0].gpu_memory_gb == 80


CHAIN = """
pools:
  - {name: a, model: org/A, fallback: b}
  - {name: b, model: org/B, fallback: c}
  - {name: c, model: org/C, fallback: d}
  - {name: d, model: vendor/d, remote: {url: "https://api.example.com/v1"}}
"""


def fallbacks(engines: str) -> dict[str, str | None]:
    cluster = place_engines(parse(f"{CHAIN}engines: [{engines}]"), DEFAULT_INVENTORY)
    return {pool.name: pool.fallback for pool in cluster.served_pools}


def test_a_fallback_that_nobody_serves_is_skipped_to_the_next_one_of_the_chain() -> None:
    assert fallbacks("{name: e, pool: a, gpus: [0]}") == {"a": "d", "d": None}
    assert fallbacks("{name: e, pool: a, gpus: [0]}, {name: f, pool: c, gpus: [1]}") == {"a": "c", "c": "d", "d": None}


def test_a_chain_that_leads_to_no_served_pool_is_none() -> None:
    text = "pools: [{name: a, model: org/A, fallback: b}, {name: b, model: org/B}]\n"
    cluster = place_engines(parse(text + "engines: [{name: e, pool: a, gpus: [0]}]"), DEFAULT_INVENTORY)
    assert cluster.served_pools[0].fallback is None


def test_engines_are_never_dealt_to_a_remote_pool() -> None:
    cluster = place_engines(parse(CHAIN), gpus(8))
    assert {engine.pool for engine in cluster.engines} == {"a", "b", "c"}


def test_rules_for_auto_that_lead_to_a_pool_nobody_serves_are_left_out_and_without_rules_it_is_the_files_order() -> (
    None
):
    engines = "engines: [{name: e, pool: c, gpus: [0]}]\n"
    cluster = place_engines(parse(CHAIN + engines + "auto: [{pool: b, min_images: 1}, {pool: d}]"), DEFAULT_INVENTORY)
    assert [route.pool for route in cluster.routes] == ["d"]
    assert [route.pool for route in place_engines(parse(CHAIN + engines), DEFAULT_INVENTORY).routes] == ["c", "d"]


SCALING = [
    (
        """
        pools: [{name: a, model: m, scaling: {min: 3, max: 5, schedule: [{engines: 4}]}}]
        engines: [{name: a-0, pool: a, gpus: [0]}, {name: a-1, pool: a, gpus: [1]}]
        """,
        [
            "pools[a].scaling.max is 5, but the pool has 2 engines",
            "pools[a].scaling.min is 3, but the pool has 2 engines",
            "pools[a].scaling.schedule requires 4 engines, but the maximum is 2",
        ],
    ),
    ("pools: [{name: a, model: m, scaling: {min: 3, max: 2}}]", ["pools[a].scaling.min 3 exceeds max 2"]),
    (
        """
        pools: [{name: a, model: m, scaling: {actuator: sleep, target: {gpu: 0.7}}}]
        engines: [{name: a-0, pool: a, flavour: cpu}]
        """,
        [
            "pools[a].scaling.target.gpu requires controller.gpu_metrics_url, the source of GPU utilization",
            "pools[a].scaling.actuator is sleep, which vLLM supports only on GPUs; engines[a-0] runs on cpu",
        ],
    ),
    (
        """
        pools:
          - {name: a, model: m, scaling: {}}
          - {name: b, model: n, remote: {url: "https://api.example.com/v1"}, scaling: {actuator: sleep}}
        controller: {containers: false}
        """,
        [
            "pools[a].scaling.actuator is containers, so controller.containers must be true",
            "pools[b].scaling must be null, because the pool is remote and has no engines to start or stop",
        ],
    ),
    (
        "pools: [{name: a, model: m, scaling: {time_zone: Mars/Base, schedule: [{engines: 1, begin: '8:00'}]}}]",
        [
            "pools[a].scaling.schedule[0].begin: expected a time such as 08:00, got '8:00'",
            "pools[a].scaling.time_zone: expected a time zone such as UTC or Europe/Berlin, got 'Mars/Base'",
        ],
    ),
]


@pytest.mark.parametrize(("text", "said"), SCALING)
def test_scaling_that_cannot_be_is_told_with_every_reason(text: str, said: list[str]) -> None:
    assert problems(text) == said


def test_a_time_without_quotes_is_what_it_looks_like() -> None:
    cluster = parse("pools: [{name: a, model: m, scaling: {schedule: [{engines: 1, begin: 08:00, end: 18:30}]}}]")
    scaling = cluster.pools[0].scaling
    assert scaling is not None
    assert scaling.schedule == (ScheduledEngines(engines=1, begin="08:00", end="18:30"),)


PAIR = """
pools:
  - {{name: a, model: m, scaling: {a}}}
  - {{name: b, model: n, scaling: {b}}}
engines:
  - {{name: a-0, pool: a, gpus: [0]}}
  - {{name: a-1, pool: a, gpus: [1]}}
  - {{name: b-0, pool: b, gpus: [2]}}
  - {{name: b-1, pool: b, gpus: [{gpu}], time_shares_with: {other}}}
"""


def test_two_engines_may_have_one_gpu_when_one_runs_instead_of_the_other() -> None:
    parse(PAIR.format(a="{}", b="{}", gpu=1, other="a-1"))


@pytest.mark.parametrize(
    ("a", "b", "gpu", "other", "said"),
    [
        ("null", "{}", 1, "a-1", "requires pools[a].scaling with the actuator containers"),
        ("{}", "{actuator: sleep}", 1, "a-1", "requires pools[b].scaling with the actuator containers"),
        ("{}", "{}", 0, "a-1", "may use only GPUs of 'a-1'"),
        ("{}", "{}", 1, "nobody", "expected the name of another engine, got 'nobody'"),
        ("{}", "{}", 2, "b-0", "of the same pool"),
        ("{min: 2}", "{}", 1, "a-1", "but the pool has 1 engine without a GPU shared with another pool"),
    ],
)
def test_a_pair_that_cannot_work_is_refused(a: str, b: str, gpu: int, other: str, said: str) -> None:
    found = problems(PAIR.format(a=a, b=b, gpu=gpu, other=other))
    assert any(said in problem for problem in found), found


def test_without_instead_of_the_gpu_is_taken_twice() -> None:
    text = PAIR.format(a="{}", b="{}", gpu=1, other="a-1").replace(", time_shares_with: a-1", "")
    assert problems(text) == ["engines[a-1] and engines[b-1] both use all of GPU 1"]


ENDPOINT = "endpoint: {url: 'https://h/x', template: {p: '{USER_PROMPT}', i: ['{IMAGE_URL}']}, answer: $.a}"
POOL = "pools: [{name: a, model: m, media: {images_per_prompt: 1, videos_per_prompt: 0}}]\n"


AT = "address: 'adapter:9100'"
WITHOUT_PICTURES = ENDPOINT.replace(", i: ['{IMAGE_URL}']", "")


@pytest.mark.parametrize(
    ("engines", "said"),
    [
        ([f"gpus: [0], {ENDPOINT}"], "engines[x0].address: expected the adapter's address, such as adapter:9100, because the engine has an endpoint"),
        ([f"address: 'adapter:80', {ENDPOINT}"], "engines[x0].address: expected a port of the adapter, 9100 to 9163, got 80"),
        ([f"{AT}, {ENDPOINT}"] * 2, "engines[x0] and engines[x1] have endpoints at the same address adapter:9100; give each a separate port"),
        ([f"{AT}, {WITHOUT_PICTURES}"], "assign the engine to a pool with media.images_per_prompt 0"),
    ],
)  # fmt: skip
def test_an_endpoint_has_a_port_of_the_adapter_and_a_pool_that_takes_what_it_takes(
    engines: list[str], said: str
) -> None:
    listed = ", ".join(f"{{name: x{number}, pool: a, {engine}}}" for number, engine in enumerate(engines))
    [found] = problems(f"{POOL}engines: [{listed}]")
    assert found.endswith(said)


def test_an_endpoint_takes_no_videos_and_its_path_and_template_are_told_by_their_places() -> None:
    assert problems(f"pools: [{{name: a, model: m}}]\nengines: [{{name: x, pool: a, {AT}, {ENDPOINT}}}]") == [
        "engines[x] has an endpoint, which does not accept videos; "
        "assign the engine to a pool with media.videos_per_prompt 0"
    ]
    wrong = ENDPOINT.replace("$.a", "'$.a['").replace("{USER_PROMPT}", "{PROMPT}")
    found = problems(f"{POOL}engines: [{{name: x, pool: a, {AT}, {wrong}}}]")
    assert [problem.split(": expected ")[0] for problem in found] == [
        "engines[x].endpoint.template", "engines[x].endpoint.answer",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("engine", "adapter", "runs"),
    [
        (ENDPOINT, "{}", True),
        ("flavour: emulated", "{}", False),
        ("flavour: emulated", "{enabled: true}", True),
        (ENDPOINT, "{enabled: false}", False),
    ],
)
def test_the_adapter_runs_where_there_is_an_endpoint_or_it_is_wanted(engine: str, adapter: str, runs: bool) -> None:
    cluster = placed(f"{POOL}engines: [{{name: x, pool: a, address: 'adapter:9100', {engine}}}]\nadapter: {adapter}\n")
    assert cluster.starts_adapter is runs
    assert f"ADAPTER_REPLICAS={int(runs)}\n" in compose_env(cluster, Path("config/c.yaml"), Path("r"), {})


def test_a_pool_without_engine_is_shown_because_fallbacks_skip_it(tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text(
        "pools: [{name: a, model: m, fallback: b}, {name: b, model: n}]\nengines: [{name: e, pool: a, gpus: [0]}]\n"
    )
    shown = subprocess.run(
        [sys.executable, "-m", "manyeyes.cli", "check-config", "--config", file],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert shown.returncode == 0
    assert "the pool 'b' has no engine" in shown.stdout + shown.stderr
    assert "'a'" not in shown.stdout + shown.stderr


def test_a_fallback_that_accepts_less_is_shown(tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    pools = "{name: a, model: m, fallback: b}, {name: b, model: n, max_model_len: 4096}"
    file.write_text(f"pools: [{pools}]\n")
    shown = subprocess.run(
        [sys.executable, "-m", "manyeyes.cli", "check-config", "--config", file],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert shown.returncode == 0
    assert "'b' answers for 'a' but accepts less" in shown.stdout
    assert "max_model_len is 4096, not 8192" in shown.stdout


@pytest.mark.parametrize("file", ["config/cluster.yaml", *sorted(map(str, Path("config/examples").glob("*.yaml")))])
def test_the_shipped_configurations_have_no_warning(file: str) -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "manyeyes.cli", "check-config", "--config", file],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert (shown.returncode, "!!" in shown.stdout) == (0, False), shown.stdout
