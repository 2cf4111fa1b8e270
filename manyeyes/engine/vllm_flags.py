"""Makes the command line of an engine from its flavour, model and GPU memory. Pure.

Sources: the options of vLLM 0.32.0; docs/engine-flags.md for the figures of memory and concurrency.
"""

import json
import re
from collections.abc import Sequence

from manyeyes.config.engines import ENGINE_PORT, Engine, in_flight, max_num_batched_tokens, max_num_seqs
from manyeyes.config.gpu_memory import UTILIZATION
from manyeyes.config.placement import PlacedCluster
from manyeyes.config.pools import AUTO, Pool

MODELS_DIR = "/models"
SERVED_NAMES = "--served-model-name"
TINY_DIR = f"{MODELS_DIR}/manyeyes/qwen3-vl-tiny"
QWEN3_VL = re.compile(r"qwen-?3-?vl")
# No host matches it, so engines fetch nothing. vLLM's default allows every host, including the metadata address.
NO_DOMAIN = "media-urls-are-off.invalid"


def serve_flags(cluster: PlacedCluster, engine: Engine) -> list[str]:
    """Returns the arguments of `vllm serve`, or of the emulator, for one engine."""
    pool = cluster.pool_of(engine)
    if engine.flavour == "emulated":
        return [*_emulated(cluster, pool, engine), *engine.vllm_flags]
    flavour_flags = _cuda(pool, engine) if engine.flavour == "cuda" else _cpu(pool, engine)
    return [
        model_path(pool),
        *_shared(cluster, pool),
        *([f"--revision={pool.revision}"] if pool.revision else []),
        *([f"--quantization={pool.quantization}"] if pool.quantization else []),
        *_media(pool),
        *_sampling(pool),
        *_parsers(pool, engine),
        *_structured_outputs(pool, engine),
        *flavour_flags,
        *pool.vllm_flags,
        *engine.vllm_flags,
    ]


def uses_sleep_mode(pool: Pool) -> bool:
    """Whether autoscaling puts the pool's engines to sleep. vLLM then also requires VLLM_SERVER_DEV_MODE=1."""
    return pool.scaling is not None and pool.scaling.actuator == "sleep"


def model_path(pool: Pool) -> str:
    """Returns the model argument of vLLM: a folder in the models volume, a mounted folder, or a hub id."""
    if pool.is_tiny:
        return TINY_DIR
    return f"/local-models/{pool.name}" if pool.is_local else pool.model


def served_names(cluster: PlacedCluster, pool: Pool) -> list[str]:
    """Returns all values of `model` that the pool's engines accept: its names, those of pools that fall back to it, and
    `auto`."""
    return [*_names_with_fallback_sources(cluster, pool), AUTO]


def served_names_slice(command: Sequence[str]) -> slice:
    """Returns the slice of a command line of `serve_flags` with the served names; an empty slice at the end if it has
    none."""
    if SERVED_NAMES not in command:
        return slice(len(command), len(command))
    begin = command.index(SERVED_NAMES) + 1
    end = next((index for index in range(begin, len(command)) if command[index].startswith("--")), len(command))
    return slice(begin, end)


def _names_with_fallback_sources(cluster: PlacedCluster, pool: Pool) -> list[str]:
    names = list(pool.names)
    for source in cluster.pools:
        if source.fallback == pool.name:
            names += [name for name in _names_with_fallback_sources(cluster, source) if name not in names]
    return names


def _shared(cluster: PlacedCluster, pool: Pool) -> list[str]:
    return [
        "--host=0.0.0.0",
        f"--port={ENGINE_PORT}",
        SERVED_NAMES,
        *served_names(cluster, pool),
        f"--max-model-len={pool.max_model_len}",
        f"--shutdown-timeout={cluster.shutdown.drain_s}",
        "--enable-request-id-headers",
        # /load counts all requests in the engine, including those whose images are still being prepared.
        "--enable-server-load-tracking",
        *(["--enable-prompt-tokens-details"] if cluster.gateway.report_cached_tokens else []),
        # A comment every 15 s prevents proxies from closing a stream that waits for its first token.
        "--sse-keep-alive-interval=15",
    ]


def _media(pool: Pool) -> list[str]:
    media = pool.media
    flags = [
        # Limits the memory of decoded images (manyeyes/engine/pod/media_memory.py).
        "--middleware=media_memory.MediaRoom",
        f"--limit-mm-per-prompt={_json({'image': media.images_per_prompt, 'video': media.videos_per_prompt})}",
        "--allowed-media-domains",
        *(media.allowed_domains or (NO_DOMAIN,)),
    ]
    pixels = {
        "images_kwargs": {"size": {"shortest_edge": media.min_pixels, "longest_edge": media.max_pixels}},
        # For a video the limit counts the pixels of all its frames.
        "videos_kwargs": {"size": {"shortest_edge": 4096, "longest_edge": media.frame_max_pixels * media.video_frames}},
    }
    flags.append(f"--mm-processor-kwargs={_json(pixels)}")
    if media.videos_per_prompt:
        # num_frames would be ignored: Qwen3-VL's loader samples by frame rate, between min and max frames.
        flags.append(f"--media-io-kwargs={_json({'video': {'max_frames': media.video_frames}})}")
    return flags


def _sampling(pool: Pool) -> list[str]:
    sampling = pool.sampling
    defaults = {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        # In vLLM this is the limit of every answer, not only a default.
        "max_new_tokens": sampling.max_tokens,
    }
    parameters = {key: value for key, value in defaults.items() if value is not None}
    return [f"--override-generation-config={_json(parameters)}"] if parameters else []


def _parsers(pool: Pool, engine: Engine) -> list[str]:
    """Returns the flags of tool calls and reasoning, for known models. Flags of the operator, also `--no-...`, have
    priority."""
    name = pool.model.rstrip("/").rpartition("/")[2].lower()
    if not (pool.is_tiny or QWEN3_VL.search(name)):
        return []
    flags = []
    if not _is_set_by_operator(pool, engine, "--enable-auto-tool-choice", "--tool-call-parser", "--tool-parser-plugin"):
        flags += ["--enable-auto-tool-choice", "--tool-call-parser=hermes"]
    if "thinking" in name and not _is_set_by_operator(pool, engine, "--reasoning-parser", "--reasoning-parser-plugin"):
        flags.append("--reasoning-parser=qwen3")
    return flags


def compiles_with_guidance(pool: Pool, engine: Engine) -> bool:
    """Whether the engine compiles schemas and grammars with llguidance. An operator's own flag may select another
    backend."""
    return not _is_set_by_operator(pool, engine, "--structured-outputs-config")


def _structured_outputs(pool: Pool, engine: Engine) -> list[str]:
    """llguidance limits what a grammar may cost; a pattern of 30 bytes ends an engine that compiles with xgrammar
    (docs/decisions/0055-llguidance-compiles-schemas.md).

    Free whitespace in JSON is disabled: with it a model may write blanks until max_tokens (vllm-project/vllm#38696).
    Properties that the schema does not name are disabled too: a small model adds them without end."""
    if not compiles_with_guidance(pool, engine):
        return []
    options = {"backend": "guidance", "disable_any_whitespace": True, "disable_additional_properties": True}
    return [f"--structured-outputs-config={_json(options)}"]


def _is_set_by_operator(pool: Pool, engine: Engine, *names: str) -> bool:
    """Whether the operator's flags contain one of `names`, also with _ instead of -, with a subfield (`--x.y=1`), or
    negated."""
    for flag in (*pool.vllm_flags, *engine.vllm_flags):
        name = flag.split("=")[0].partition(".")[0].replace("_", "-")
        if name in names or name.replace("--no-", "--", 1) in names:
            return True
    return False


def _cuda(pool: Pool, engine: Engine) -> list[str]:
    sequences = max_num_seqs(pool, engine)
    flags = [
        f"--gpu-memory-utilization={round((engine.gpu_memory_utilization or UTILIZATION) * engine.gpu_fraction, 3)}",
        f"--max-num-seqs={sequences}",
        f"--max-num-batched-tokens={max_num_batched_tokens(pool, engine)}",
        f"--max-num-queued-reqs={in_flight(pool, engine)}",
        "--mm-processor-cache-gb=4",
    ]
    if uses_sleep_mode(pool):
        flags.append("--enable-sleep-mode")
    if pool.kv_cache_dtype != "auto":
        flags.append(f"--kv-cache-dtype={pool.kv_cache_dtype}")
    if engine.parallel > 1:
        flags += [f"--tensor-parallel-size={engine.parallel}", "--mm-encoder-tp-mode=data"]
    return flags


def _cpu(pool: Pool, engine: Engine) -> list[str]:
    sequences = max_num_seqs(pool, engine)
    # 64 MiB are 87,000 tokens of the tiny model. A 2B model has 112 KiB per token, so 2 GiB are 18,000 tokens.
    kv_bytes = 64 * 1024**2 if pool.is_tiny else 2 * 1024**3
    return [
        f"--max-num-seqs={sequences}",
        f"--max-num-queued-reqs={in_flight(pool, engine)}",
        f"--kv-cache-memory-bytes={kv_bytes}",
        f"--mm-processor-cache-gb={0.25 if pool.is_tiny else 1}",
        "--enforce-eager",
    ]


def _emulated(cluster: PlacedCluster, pool: Pool, engine: Engine) -> list[str]:
    media = pool.media
    return [
        "--host=0.0.0.0",
        f"--port={ENGINE_PORT}",
        SERVED_NAMES,
        *served_names(cluster, pool),
        f"--profile={'rtx4090-qwen3-vl-8b-fp8' if '8b' in pool.model.lower() else 'rtx4090-qwen3-vl-4b-fp8'}",
        f"--max-model-len={pool.max_model_len}",
        f"--max-num-seqs={max_num_seqs(pool, engine)}",
        f"--max-num-queued-reqs={in_flight(pool, engine)}",
        f"--min-pixels={media.min_pixels}",
        f"--max-pixels={media.max_pixels}",
        f"--video-frames={media.video_frames}",
        f"--video-max-pixels={media.frame_max_pixels * media.video_frames}",
        f"--limit-mm-per-prompt={_json({'image': media.images_per_prompt, 'video': media.videos_per_prompt})}",
        f"--shutdown-timeout={cluster.shutdown.drain_s}",
        *(["--enable-sleep-mode"] if uses_sleep_mode(pool) else []),
        "--enable-server-load-tracking",
        *([] if cluster.gateway.report_cached_tokens else ["--no-enable-prompt-tokens-details"]),
    ]


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
