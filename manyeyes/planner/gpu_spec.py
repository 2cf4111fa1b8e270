"""The card that is asked about: a timing profile, and vLLM's settings as the configuration would choose them."""

import re
from pathlib import Path

from manyeyes.config.capacity import DEFAULT_GPU_MEMORY_GB, in_flight, max_num_batched_tokens, max_num_seqs
from manyeyes.config.cluster import Cluster
from manyeyes.config.engines import Engine
from manyeyes.config.pools import Pool
from manyeyes.planner.plan_request import Card
from manyeyes.simulator import profile
from manyeyes.simulator.profile import Profile


class UnknownCard(Exception):
    """There is no such pool, or no profile of that GPU with that pool's model. `str()` is one sentence."""


def pool_named(cluster: Cluster, name: str) -> Pool:
    """The pool that is asked about; the first one where none is named. Raises UnknownCard."""
    if not name:
        return cluster.pools[0]
    for pool in cluster.pools:
        if name in pool.names:
            return pool
    raise UnknownCard(f"POOL={name}: there is no such pool; known: {', '.join(pool.name for pool in cluster.pools)}")


def profile_of(gpu: str, pool: Pool) -> Profile:
    """By a GPU's name (rtx4090) and the size of the pool's model, or from a file. Raises UnknownCard."""
    if Path(gpu).suffix in (".yaml", ".yml"):
        try:
            return profile.load(gpu)
        except ValueError as error:
            raise UnknownCard(f"GPU={error}") from None
    size = _size(pool.model) or _size(pool.name)
    for name in profile.names():
        if name.startswith(f"{gpu.lower()}-") and size is not None and _size(name) == size:
            return profile.load(name)
    raise UnknownCard(
        f"GPU={gpu} POOL={pool.name}: there is no profile of {pool.model} on that GPU; known: "
        f"{', '.join(profile.names())}, or a file that `make calibrate` wrote"
    )


def card(wanted: Profile, pool: Pool) -> Card:
    """With the flags of manyeyes/engine/vllm_flags.py for that much memory."""
    found = re.search(r"(\d+) ?GB", wanted.gpu)
    memory = float(found[1]) if found else DEFAULT_GPU_MEMORY_GB
    engine = Engine(name="planned", pool=pool.name, gpu_memory_gb=memory)
    batched = max_num_batched_tokens(pool, engine)
    video = pool.media.frame_max_pixels * pool.media.video_frames // 2 if pool.media.videos_per_prompt else 0
    return Card(
        profile=wanted,
        kv_cache_tokens=max(wanted.kv_cache_tokens, pool.max_model_len),
        max_num_seqs=max_num_seqs(pool, engine),
        max_num_batched_tokens=batched,
        in_flight=in_flight(pool, engine),
        mm_cache_bytes=4 * 1024**3,  # --mm-processor-cache-gb=4 in manyeyes/engine/vllm_flags.py
        encoder_tokens=max(batched, pool.media.max_pixels // 1024, video // 1024),
    )


def _size(name: str) -> str | None:
    found = re.search(r"(\d+)b\b", name.lower())
    return found[1] if found else None
