"""The command line of an engine, chosen by flavour, model and GPU memory. Pure: no look at the host.

Sources: vLLM 0.32.0's own options; figures for memory and concurrency in docs/engine-flags.md.
"""

import json
import re
from collections.abc import Sequence

from config.capacity import in_flight, max_num_batched_tokens, max_num_seqs
from config.cluster import Cluster
from config.engines import ENGINE_PORT, Engine
from config.pools import Pool
from config.routes import AUTO

MODELS_DIR = "/models"
SERVED_NAMES = "--served-model-name"
TINY_DIR = f"{MODELS_DIR}/manyeyes/qwen3-vl-tiny"
# vLLM's own default; leaves room for the activation peaks of large pictures.
GPU_MEMORY_UTILIZATION = 0.92
QWEN3_VL = re.compile(r"qwen-?3-?vl")
# No host matches it, so engines fetch nothing: vLLM's own default allows every host, the metadata address included.
NO_DOMAIN = "media-urls-are-off.invalid"


def serve_flags(cluster: Cluster, engine: Engine) -> list[str]:
    """The arguments after `vllm serve`, or of the emulator, for one engine."""
    pool = cluster.pool(engine.pool)
    if engine.flavour == "emulated":
        return [*_emulated(cluster, pool, engine), *engine.vllm_flags]
    specific = _cuda(pool, engine) if engine.flavour == "cuda" else _cpu(pool, engine)
    return [
        model_path(pool),
        *_shared(cluster, pool),
        *([f"--revision={pool.revision}"] if pool.revision else []),
        *([f"--quantization={pool.quantization}"] if pool.quantization else []),
        *_media(pool),
        *_sampling(pool),
        *_parsers(pool, engine),
        *_structured(pool, engine),
        *specific,
        *pool.vllm_flags,
        *engine.vllm_flags,
    ]


def sleeps(pool: Pool) -> bool:
    """Its engines are put to sleep when they are not needed. vLLM then also wants VLLM_SERVER_DEV_MODE=1."""
    return pool.scaling is not None and pool.scaling.actuator == "sleep"


def model_path(pool: Pool) -> str:
    """What vLLM is told to load: a folder in the models volume, a mounted folder, or a hub id."""
    if pool.is_tiny:
        return TINY_DIR
    return f"/local-models/{pool.name}" if pool.is_local else pool.model


def served_names(cluster: Cluster, pool: Pool) -> list[str]:
    """Every `model` its engines must accept: the pool's own names, those of pools that fall back to it, and `auto`."""
    return [*_names_and_those_before(cluster, pool), AUTO]


def where_served_names(command: Sequence[str]) -> slice:
    """Where a command line of `serve_flags` has them; an empty slice at its end where it has none."""
    if SERVED_NAMES not in command:
        return slice(len(command), len(command))
    begin = command.index(SERVED_NAMES) + 1
    end = next((place for place in range(begin, len(command)) if command[place].startswith("--")), len(command))
    return slice(begin, end)


def _names_and_those_before(cluster: Cluster, pool: Pool) -> list[str]:
    names = list(pool.names)
    for other in cluster.pools:
        if other.fallback == pool.name:
            names += [name for name in _names_and_those_before(cluster, other) if name not in names]
    return names


def _shared(cluster: Cluster, pool: Pool) -> list[str]:
    return [
        "--host=0.0.0.0",
        f"--port={ENGINE_PORT}",
        SERVED_NAMES,
        *served_names(cluster, pool),
        f"--max-model-len={pool.max_model_len}",
        f"--shutdown-timeout={cluster.shutdown.drain_s}",
        "--enable-request-id-headers",
        # /load counts the requests inside, those too whose pictures are still being prepared.
        "--enable-server-load-tracking",
        # Tells clients how many tokens of the prompt came from the KV cache.
        "--enable-prompt-tokens-details",
        # A comment every 15 s keeps proxies on the way from closing a stream that waits for its first token.
        "--sse-keep-alive-interval=15",
    ]


def _media(pool: Pool) -> list[str]:
    media = pool.media
    flags = [
        # Bounds the memory of decoded pictures (engine/pod/media_room.py).
        "--middleware=media_room.MediaRoom",
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
        # num_frames is accepted and ignored: Qwen3-VL's loader samples by frame rate, between min and max frames.
        flags.append(f"--media-io-kwargs={_json({'video': {'max_frames': media.video_frames}})}")
    return flags


def _sampling(pool: Pool) -> list[str]:
    sampling = pool.sampling
    wanted = {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        # vLLM takes this one as the limit for every answer, not only as a default.
        "max_new_tokens": sampling.max_tokens,
    }
    given = {key: value for key, value in wanted.items() if value is not None}
    return [f"--override-generation-config={_json(given)}"] if given else []


def _parsers(pool: Pool, engine: Engine) -> list[str]:
    """Tool calls and reasoning of the models that are known. The operator's own choice, also `--no-...`, is left alone."""
    name = pool.model.rstrip("/").rpartition("/")[2].lower()
    if not (pool.is_tiny or QWEN3_VL.search(name)):
        return []
    flags = []
    if not _sets(pool, engine, "--enable-auto-tool-choice", "--tool-call-parser", "--tool-parser-plugin"):
        flags += ["--enable-auto-tool-choice", "--tool-call-parser=hermes"]
    if "thinking" in name and not _sets(pool, engine, "--reasoning-parser", "--reasoning-parser-plugin"):
        flags.append("--reasoning-parser=qwen3")
    return flags


def _structured(pool: Pool, engine: Engine) -> list[str]:
    """Without this a model may write blanks between the fields of its JSON until max_tokens (vllm-project/vllm#38696)."""
    if _sets(pool, engine, "--structured-outputs-config"):
        return []
    # The backend `auto` is refused together with disable_any_whitespace.
    return [f"--structured-outputs-config={_json({'backend': 'xgrammar', 'disable_any_whitespace': True})}"]


def _sets(pool: Pool, engine: Engine, *names: str) -> bool:
    """Whether the operator's own flags have one of `names`: with _ for -, with a part of it (`--x.y=1`), or negated."""
    for flag in (*pool.vllm_flags, *engine.vllm_flags):
        name = flag.split("=")[0].partition(".")[0].replace("_", "-")
        if name in names or name.replace("--no-", "--", 1) in names:
            return True
    return False


def _cuda(pool: Pool, engine: Engine) -> list[str]:
    sequences = max_num_seqs(pool, engine)
    flags = [
        f"--gpu-memory-utilization={round(GPU_MEMORY_UTILIZATION * engine.share, 3)}",
        f"--max-num-seqs={sequences}",
        f"--max-num-batched-tokens={max_num_batched_tokens(pool, engine)}",
        f"--max-num-queued-reqs={in_flight(pool, engine)}",
        "--mm-processor-cache-gb=4",
    ]
    if sleeps(pool):
        flags.append("--enable-sleep-mode")
    if pool.kv_cache_dtype != "auto":
        flags.append(f"--kv-cache-dtype={pool.kv_cache_dtype}")
    if engine.parallel > 1:
        flags += [f"--tensor-parallel-size={engine.parallel}", "--mm-encoder-tp-mode=data"]
    return flags


def _cpu(pool: Pool, engine: Engine) -> list[str]:
    sequences = max_num_seqs(pool, engine)
    # 87,000 tokens of the tiny model's KV cache; a 2B model has 112 KiB a token, so 2 GiB hold 18,000.
    kv_bytes = 64 * 1024**2 if pool.is_tiny else 2 * 1024**3
    return [
        f"--max-num-seqs={sequences}",
        f"--max-num-queued-reqs={in_flight(pool, engine)}",
        f"--kv-cache-memory-bytes={kv_bytes}",
        f"--mm-processor-cache-gb={0.25 if pool.is_tiny else 1}",
        "--enforce-eager",
    ]


def _emulated(cluster: Cluster, pool: Pool, engine: Engine) -> list[str]:
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
        *(["--enable-sleep-mode"] if sleeps(pool) else []),
        "--enable-server-load-tracking",
    ]


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
