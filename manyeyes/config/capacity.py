"""How many requests an engine takes. Pure: by flavour, model and GPU memory; figures in docs/engine-flags.md."""

from manyeyes.config.engines import Engine
from manyeyes.config.pools import Pool

DEFAULT_GPU_MEMORY_GB = 24.0


def max_num_seqs(pool: Pool, engine: Engine) -> int:
    """Requests that run at once: what the KV cache holds of about 1,500 tokens each, at 144 KiB a token, rounded down.

    24 GiB with 8B-FP8 leaves room for 47 such requests; below that vLLM would preempt.
    """
    if pool.max_num_seqs is not None:
        return pool.max_num_seqs
    if engine.flavour == "cpu":
        return 16
    memory = (engine.gpu_memory_gb or DEFAULT_GPU_MEMORY_GB) * engine.share * engine.parallel
    for at_least, sequences in ((140, 512), (70, 256), (40, 128), (22, 48), (15, 24)):
        if memory >= at_least:
            return sequences
    return 12


def in_flight(pool: Pool, engine: Engine) -> int:
    """Requests that an engine is given at a time: those it runs, and as many again that wait in it (on CPU three times)."""
    if engine.max_in_flight is not None:
        return engine.max_in_flight
    if pool.max_in_flight is not None:
        return pool.max_in_flight
    return (4 if engine.flavour == "cpu" else 2) * max_num_seqs(pool, engine)


def capacities(pool: Pool, engines: tuple[Engine, ...]) -> dict[str, int]:
    """{engine: requests at a time} for the engines of one pool."""
    return {engine.name: in_flight(pool, engine) for engine in engines if engine.pool == pool.name}


def max_num_batched_tokens(pool: Pool, engine: Engine) -> int:
    """Tokens that one iteration computes.

    One 1080p picture is 2,040 tokens: vLLM's default of 2,048 on smaller cards would prefill pictures one by one.
    """
    memory = engine.gpu_memory_gb or DEFAULT_GPU_MEMORY_GB
    return max(8192 if memory >= 40 else 4096, _largest_item(pool))


def _largest_item(pool: Pool) -> int:
    """Vision tokens of the largest picture or video a request may bring, rounded up to whole 1,024s."""
    media = pool.media
    video = media.frame_max_pixels * media.video_frames // 2 if media.videos_per_prompt else 0
    tokens = max(media.max_pixels, video) // 1024
    return -(-tokens // 1024) * 1024


def nearest_rendered_capacity(pool: Pool, engine: Engine, written: tuple[Engine, ...]) -> int:
    """Requests at a time for an engine that the gateway's files do not know.

    They name a pool's members by capacity, so an engine of another capacity would need other files. It takes the largest
    capacity of the pool's written engines that is not above its own, else the smallest of them. A pool without written
    engines has one capacity, whatever is registered for it.
    """
    there = sorted(set(capacities(pool, written).values())) or [in_flight(pool, Engine(name=pool.name, pool=pool.name))]
    return max((one for one in there if one <= in_flight(pool, engine)), default=there[0])
