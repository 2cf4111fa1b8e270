"""Computes how much of a GPU's memory a model needs, and how many tokens of KV cache are left. Pure.

Estimates, in GiB. Sources: sizes of the published checkpoints; `num_hidden_layers`, `num_key_value_heads` and `head_dim`
of their config.json; context, activations and CUDA graphs of vLLM 0.32 as reported for 16 and 24 GiB
(vllm-project/vllm#46625: an RTX 5080 with 8B-FP8 has 10.18 GiB of weights and 13,104 tokens of KV cache).
"""

import re
from dataclasses import dataclass

from manyeyes.config.pools import Pool

UTILIZATION = 0.92
"""vLLM's default for --gpu-memory-utilization. The rest is for activation peaks of large images."""
RESERVED_GB = 0.45
"""nvidia-smi's total less what CUDA shows to programs: 24.0 and 23.5 GiB on an RTX 4090."""
CONTEXT_GB, ACTIVATIONS_GB, GRAPHS_GB = 0.45, 0.9, 0.3
MIN_MEMORY_GB = 5.5
"""GPUs sold with 6 GB have a little less."""
MIN_COMPUTE_CAPABILITY = 7.5
"""vLLM's binaries have kernels for 7.5 (Turing) and newer; CUDA 13 has none for older GPUs."""


@dataclass(frozen=True)
class ModelMemory:
    """`kv_kib`: KV cache of one token, in KiB, with 16-bit values."""

    weights_gb: float
    kv_kib: float


KNOWN_MODELS = {
    "qwen3-vl-2b": (3.96, 2.61, 112),
    "qwen3-vl-4b": (8.27, 4.87, 144),
    "qwen3-vl-8b": (16.33, 9.85, 144),
    "qwen3-vl-30b-a3b": (57.9, 30.1, 96),
    "qwen3-vl-32b": (62.1, 32.9, 256),
}
"""Model -> GiB of weights in BF16, in FP8, and KiB of KV cache for one token."""
BYTES_PER_PARAMETER = {16: 2.05, 8: 1.2, 4: 0.75}
"""Of a whole checkpoint: embeddings and the vision encoder stay in BF16."""
FOUR_BIT = re.compile(r"awq|gptq|int4|4[-_]?bit|w4a16|nvfp4|mxfp4", re.IGNORECASE)
EIGHT_BIT = re.compile(r"fp8|int8|8[-_]?bit|w8a8|w8a16", re.IGNORECASE)
PARAMETERS = re.compile(r"(?<![a-z0-9.])(\d+(?:\.\d+)?)b(?![a-z0-9])", re.IGNORECASE)


def model_memory(pool: Pool) -> ModelMemory | None:
    """Returns what the pool's model needs, by its name; None if the name shows no size."""
    name = pool.model.rstrip("/").rpartition("/")[2].lower()
    bits = 4 if FOUR_BIT.search(name) else 8 if EIGHT_BIT.search(f"{name} {pool.quantization or ''}") else 16
    for known, (bf16_gb, fp8_gb, kv_kib) in KNOWN_MODELS.items():
        if re.match(rf"{re.escape(known)}(?![0-9a-z])", name):
            weights_gb = {16: bf16_gb, 8: fp8_gb, 4: bf16_gb * BYTES_PER_PARAMETER[4] / BYTES_PER_PARAMETER[16]}[bits]
            return ModelMemory(round(weights_gb, 2), kv_kib)
    if size := PARAMETERS.search(name):
        billions = float(size[1])
        weights_gb = billions * 1e9 * BYTES_PER_PARAMETER[bits] / 1024**3
        return ModelMemory(round(weights_gb, 2), 112 if billions < 3 else 144 if billions < 15 else 256)
    return None


def kv_cache_tokens(
    pool: Pool, gpu_memory_gb: float, utilization: float = UTILIZATION, parallel: int = 1
) -> int | None:
    """Returns the tokens that the KV cache of one engine holds; 0 if the model does not fit, None if it is unknown.

    `gpu_memory_gb`: of one GPU, as nvidia-smi shows it. `utilization`: the engine's share of it. `parallel`: number of GPUs of the engine.
    """
    model = model_memory(pool)
    if model is None:
        return None
    used_gb = model.weights_gb / parallel + CONTEXT_GB + ACTIVATIONS_GB + GRAPHS_GB
    left_gb = (gpu_memory_gb - RESERVED_GB) * utilization - used_gb
    kv_kib = model.kv_kib / parallel / (2 if pool.kv_cache_dtype == "fp8" else 1)
    return max(0, int(left_gb * 1024**2 / kv_kib))


def fits(pool: Pool, gpu_memory_gb: float, utilization: float = UTILIZATION) -> bool:
    """Whether an engine of the pool on this GPU can serve a request of `max_model_len`; true for an unknown model."""
    tokens = kv_cache_tokens(pool, gpu_memory_gb, utilization)
    return tokens is None or tokens >= pool.max_model_len
