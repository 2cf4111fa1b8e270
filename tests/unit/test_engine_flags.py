"""The command line of an engine: what configuration and GPU memory make of it."""

import json

import pytest

from manyeyes.config.loader import ConfigError
from manyeyes.config.placement import PlacedCluster
from manyeyes.engine.vllm_flags import serve_flags, served_names
from manyeyes.render.engine_container import environment_of, media_environment, memory_gb
from tests.placed import placed


def flags(pool: str = "", engine: str = "gpus: [0]", more: str = "") -> list[str]:
    cluster = placed(f"pools: [{{name: a, model: org/A, {pool}}}]\nengines: [{{name: e, pool: a, {engine}}}]\n{more}")
    return serve_flags(cluster, cluster.engines[0])


def value(of: list[str], name: str) -> str:
    found = [flag.split("=", 1)[1] for flag in of if flag.startswith(name + "=")]
    assert len(found) == 1, (name, of)
    return found[0]


@pytest.mark.parametrize(
    ("memory", "sequences", "batched"),
    [(8, 12, 4096), (16, 24, 4096), (24, 48, 4096), (47.5, 128, 8192), (80, 256, 8192), (141, 512, 8192)],
)
def test_more_gpu_memory_runs_more_requests_at_once(memory: float, sequences: int, batched: int) -> None:
    found = flags(engine=f"gpus: [0], gpu_memory_gb: {memory}")
    assert value(found, "--max-num-seqs") == str(sequences)
    assert value(found, "--max-num-queued-reqs") == str(2 * sequences)
    assert value(found, "--max-num-batched-tokens") == str(batched)


def test_a_share_of_a_gpu_takes_that_share_of_its_memory() -> None:
    assert value(flags(), "--gpu-memory-utilization") == "0.92"
    assert value(flags(engine="gpus: [0], gpu_fraction: 0.5"), "--gpu-memory-utilization") == "0.46"


def test_several_gpus_make_a_tensor_parallel_group() -> None:
    found = flags(engine="gpus: [0, 1]")
    assert value(found, "--tensor-parallel-size") == "2"
    assert "--mm-encoder-tp-mode=data" in found
    assert not any("tensor-parallel" in flag for flag in flags())


def test_limits_for_pictures_and_videos_are_passed_on() -> None:
    found = flags(pool="media: {images_per_prompt: 3, videos_per_prompt: 1, video_frames: 8, frame_max_pixels: 100000}")
    assert json.loads(value(found, "--limit-mm-per-prompt")) == {"image": 3, "video": 1}
    kwargs = json.loads(value(found, "--mm-processor-kwargs"))
    assert kwargs["images_kwargs"]["size"] == {"shortest_edge": 65536, "longest_edge": 1310720}
    assert kwargs["videos_kwargs"]["size"]["longest_edge"] == 800000
    assert json.loads(value(found, "--media-io-kwargs")) == {"video": {"max_frames": 8}}


def test_a_pool_without_videos_reserves_nothing_for_them() -> None:
    assert not any(flag.startswith("--media-io-kwargs") for flag in flags(pool="media: {videos_per_prompt: 0}"))


def test_engines_fetch_no_url_unless_its_domain_is_allowed() -> None:
    found = flags()
    assert found[found.index("--allowed-media-domains") + 1].endswith(".invalid")
    found = flags(pool="media: {allowed_domains: [a.org, b.org]}")
    place = found.index("--allowed-media-domains")
    assert found[place + 1 : place + 3] == ["a.org", "b.org"]


def test_sampling_defaults_and_the_answers_limit_are_passed_on() -> None:
    assert json.loads(
        value(flags(pool="sampling: {temperature: 0.2, max_tokens: 512}"), "--override-generation-config")
    ) == {
        "temperature": 0.2,
        "max_new_tokens": 512,
    }
    assert not any("generation" in flag for flag in flags())


def test_the_operators_own_flags_come_last_the_engines_after_the_pools() -> None:
    assert flags(pool="vllm_flags: ['--seed=1']", engine="gpus: [0], vllm_flags: ['--seed=2']")[-2:] == [
        "--seed=1",
        "--seed=2",
    ]


def test_an_engine_answers_to_the_names_of_pools_that_fall_back_to_it() -> None:
    cluster: PlacedCluster = placed(
        "pools: [{name: a, model: org/A, aliases: [x], fallback: b}, {name: b, model: org/B, fallback: c}, {name: c, model: tiny}]\n"
        "engines: [{name: e-a, pool: a, flavour: emulated}, {name: e-b, pool: b, flavour: emulated}, {name: e-c, pool: c, flavour: emulated}]"
    )
    assert served_names(cluster, cluster.pool("b")) == ["b", "org/B", "a", "org/A", "x", "auto"]
    assert served_names(cluster, cluster.pool("c")) == ["c", "b", "org/B", "a", "org/A", "x", "auto"]


def test_a_local_folder_is_served_from_its_mount_and_not_named_by_its_path() -> None:
    cluster = placed("pools: [{name: a, model: /data/my-model}]\nengines: [{name: e, pool: a, gpus: [0]}]")
    found = serve_flags(cluster, cluster.engines[0])
    assert found[0] == "/local-models/a"
    assert "/data/my-model" not in found


def environment(pool: str = "", engine: str = "gpus: [0]") -> dict[str, str]:
    cluster = placed(f"pools: [{{name: a, model: org/A, {pool}}}]\nengines: [{{name: e, pool: a, {engine}}}]\n")
    return environment_of(cluster, cluster.pools[0], cluster.engines[0])


@pytest.mark.parametrize("engine", ["gpus: [0]", "flavour: cpu", "flavour: emulated"])
def test_every_engine_refuses_pictures_and_requests_that_are_too_large(engine: str) -> None:
    found = environment(engine=engine)
    assert found["VLLM_MAX_IMAGE_PIXELS"] == "50000000"
    assert found["VLLM_MAX_N_SEQUENCES"] == "8"
    assert found["VLLM_MAX_COMPLETION_PROMPTS"] == "16"
    found = environment("media: {max_decoded_pixels: 20000000}", engine)
    assert found["VLLM_MAX_IMAGE_PIXELS"] == "20000000"


def test_the_operators_variables_come_last_and_those_of_an_engine_win() -> None:
    found = environment('environment: ["NCCL_P2P_DISABLE=1", "VLLM_MAX_N_SEQUENCES=4"]')
    assert (found["NCCL_P2P_DISABLE"], found["VLLM_MAX_N_SEQUENCES"]) == ("1", "4")
    found = environment('environment: ["NCCL_P2P_DISABLE=1"]', 'gpus: [0], environment: ["NCCL_P2P_DISABLE=0"]')
    assert found["NCCL_P2P_DISABLE"] == "0"


@pytest.mark.parametrize(
    "written", ["LD_PRELOAD=/x", "PATH=/x", "NCCL_A=${HOME}", "NCCL_A=a\\nb", "NCCL_A", "nccl_a=1"]
)
def test_other_variables_are_refused(written: str) -> None:
    with pytest.raises(ConfigError, match="environment"):
        environment(f'environment: ["{written}"]')


def test_a_short_video_fits_into_a_batch() -> None:
    """The image processor pads 5 frames, whose size it computes for 4, to 6."""
    for frames, tokens in ((16, 4096), (32, 6144), (64, 12_288)):
        found = value(flags(pool=f"media: {{video_frames: {frames}}}"), "--max-num-batched-tokens")
        assert int(found) == tokens


def test_engines_use_no_proxy_for_their_own_addresses() -> None:
    assert environment()["no_proxy"] == "localhost,127.0.0.1"


def test_forced_tool_calls_are_described_so_that_the_grammar_backend_reads_them() -> None:
    assert environment()["VLLM_ENFORCE_STRICT_TOOL_CALLING"] == "0"
    own = environment('vllm_flags: ["--structured-outputs-config.backend=xgrammar"]')
    assert "VLLM_ENFORCE_STRICT_TOOL_CALLING" not in own


@pytest.mark.parametrize("engine", ["gpus: [0]", "flavour: cpu", "flavour: cpu, memory_gb: 3"])
def test_decoded_media_leave_most_of_an_engines_memory_to_the_rest(engine: str) -> None:
    cluster = placed(f"pools: [{{name: a, model: tiny}}]\nengines: [{{name: e, pool: a, {engine}}}]\n")
    pool, found = cluster.pools[0], cluster.engines[0]
    limit = memory_gb(found, pool) * 1024
    given = media_environment(pool, found)
    decoding = int(given["VLLM_MEDIA_LOADING_THREAD_COUNT"]) * pool.media.max_decoded_pixels * 8 / 1024**2
    assert decoding + int(given["MANYEYES_MEDIA_MEMORY_MB"]) < limit / 2
    assert given["VLLM_MEDIA_CONNECTOR"] == "bounded"
    assert "--middleware=media_memory.MediaRoom" in serve_flags(cluster, found)


@pytest.mark.parametrize(
    ("model", "tools", "reasoning"),
    [
        ("tiny", True, False),
        ("Qwen/Qwen3-VL-8B-Instruct-FP8", True, False),
        ("Qwen/Qwen3-VL-8B-Thinking", True, True),
        ("cpatonn/Qwen3-VL-4B-Thinking-AWQ-4bit", True, True),
        ("/data/qwen3-vl-4b-thinking/", True, True),
        ("/data/qwen3-vl/some-other-model", False, False),
        ("org/Other-Thinking", False, False),
        ("google/gemma-3-4b-it", False, False),
    ],
)
def test_known_models_call_tools_and_tell_reasoning_apart(model: str, tools: bool, reasoning: bool) -> None:
    cluster = placed(f"pools: [{{name: a, model: {model}}}]\nengines: [{{name: e, pool: a, gpus: [0]}}]")
    found = serve_flags(cluster, cluster.engines[0])
    assert ("--enable-auto-tool-choice" in found) == tools
    assert ("--tool-call-parser=hermes" in found) == tools
    assert ("--reasoning-parser=qwen3" in found) == reasoning


@pytest.mark.parametrize(
    ("own", "left_out"),
    [
        ("--tool-call-parser=qwen3_xml", "tool"),
        ("--tool_call_parser=qwen3_xml", "tool"),
        ("--no-enable-auto-tool-choice", "tool"),
        ("--reasoning-parser=deepseek_r1", "--reasoning-parser=qwen3"),
        ("--structured-outputs-config.backend=xgrammar", "guidance"),
        ('--structured-outputs-config={"backend":"auto"}', "guidance"),
    ],
)
@pytest.mark.parametrize("where", ["pool", "engine"])
def test_the_operators_own_parsers_and_grammar_backend_replace_ours(own: str, left_out: str, where: str) -> None:
    cluster = placed("pools: [{name: a, model: Qwen/Qwen3-VL-4B-Thinking}]\nengines: [{name: e, pool: a, gpus: [0]}]")
    engine = cluster.engines[0].model_copy(update={"vllm_flags": (own,) if where == "engine" else ()})
    pool = cluster.pools[0].model_copy(update={"vllm_flags": (own,) if where == "pool" else ()})
    found = serve_flags(cluster.model_copy(update={"pools": (pool,)}), engine)
    assert [flag for flag in found if left_out in flag and flag != own] == []
    assert found.count(own) == 1


def test_json_answers_are_written_without_blanks_between_their_fields() -> None:
    for engine in ("gpus: [0]", "flavour: cpu"):
        found = value(flags(engine=engine), "--structured-outputs-config")
        assert json.loads(found) == {
            "backend": "guidance",
            "disable_any_whitespace": True,
            "disable_additional_properties": True,
        }
