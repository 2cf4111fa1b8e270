"""What is asked of the planner: the work, what is good enough, and the GPU it runs on (a timing profile, and vLLM's settings as
the configuration would choose them)."""

import re
from dataclasses import dataclass
from pathlib import Path

from manyeyes.config.cluster import Cluster
from manyeyes.config.engines import DEFAULT_GPU_MEMORY_GB, Engine, in_flight, max_num_batched_tokens, max_num_seqs
from manyeyes.config.pools import Pool
from manyeyes.planner.workload import PlannedWorkload
from manyeyes.simulator import profile
from manyeyes.simulator.profile import TimingProfile


@dataclass(frozen=True)
class GpuSpec:
    """One GPU with its model and vLLM's settings for it, as config/ and manyeyes/engine/vllm_flags.py would choose them."""

    profile: TimingProfile
    kv_cache_tokens: int
    max_num_seqs: int
    max_num_batched_tokens: int
    in_flight: int  # requests that the gateway gives it, and that it queues, at a time
    mm_cache_bytes: float
    encoder_tokens: int  # what the vision encoder's cache holds: a batch, or the largest picture


@dataclass(frozen=True)
class PlanRequest:
    """Rates are requests a second, times seconds. A share is between 0 and 1."""

    work: PlannedWorkload
    card: GpuSpec
    rps: float
    p95_s: float  # of the time from a request to its last token
    first_p95_s: float | None  # of the time to the first token; None: any
    goodput: float  # the least share of requests that must be answered
    policy: str = "sticky"
    tries: int = 2  # engines that the gateway asks for one request
    seed: int = 1


class UnknownGpu(Exception):
    """There is no such pool, or no profile of that GPU with that pool's model. `str()` is one sentence."""


def pool_named(cluster: Cluster, name: str) -> Pool:
    """The pool that is asked about; the first one where none is named. Raises UnknownCard."""
    if not name:
        return cluster.pools[0]
    for pool in cluster.pools:
        if name in pool.names:
            return pool
    raise UnknownGpu(f"POOL={name}: there is no such pool; known: {', '.join(pool.name for pool in cluster.pools)}")


def profile_of(gpu: str, pool: Pool) -> TimingProfile:
    """By a GPU's name (rtx4090) and the size of the pool's model, or from a file. Raises UnknownCard."""
    if Path(gpu).suffix in (".yaml", ".yml"):
        try:
            return profile.load_profile(gpu)
        except ValueError as error:
            raise UnknownGpu(f"GPU={error}") from None
    size = _model_size(pool.model) or _model_size(pool.name)
    for name in profile.profile_names():
        if name.startswith(f"{gpu.lower()}-") and size is not None and _model_size(name) == size:
            return profile.load_profile(name)
    raise UnknownGpu(
        f"GPU={gpu} POOL={pool.name}: there is no profile of {pool.model} on that GPU; known: "
        f"{', '.join(profile.profile_names())}, or a file that `manyeyes calibrate` wrote"
    )


def gpu_spec_of(wanted: TimingProfile, pool: Pool) -> GpuSpec:
    """With the flags of manyeyes/engine/vllm_flags.py for that much memory."""
    found = re.search(r"(\d+) ?GB", wanted.gpu)
    memory = float(found[1]) if found else DEFAULT_GPU_MEMORY_GB
    engine = Engine(name="planned", pool=pool.name, gpu_memory_gb=memory)
    batched = max_num_batched_tokens(pool, engine)
    video = pool.media.frame_max_pixels * pool.media.video_frames // 2 if pool.media.videos_per_prompt else 0
    return GpuSpec(
        profile=wanted,
        kv_cache_tokens=max(wanted.kv_cache_tokens, pool.max_model_len),
        max_num_seqs=max_num_seqs(pool, engine),
        max_num_batched_tokens=batched,
        in_flight=in_flight(pool, engine),
        mm_cache_bytes=4 * 1024**3,  # --mm-processor-cache-gb=4 in manyeyes/engine/vllm_flags.py
        encoder_tokens=max(batched, pool.media.max_pixels // 1024, video // 1024),
    )


def _model_size(name: str) -> str | None:
    found = re.search(r"(\d+)b\b", name.lower())
    return found[1] if found else None
