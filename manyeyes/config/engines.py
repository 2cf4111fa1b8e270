"""An engine, one vLLM process on one GPU, a tensor-parallel group, or a share of a GPU; and how many requests it takes."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, StringConstraints, WithJsonSchema

from manyeyes.config.custom_endpoint import Endpoint
from manyeyes.config.fields import IsAddress, Name, Section
from manyeyes.config.pools import Flavour, Pool

ENGINE_PORT = 8000
"""Where every engine that Compose starts listens, inside the cluster's network."""


def _text(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Gpu = Annotated[
    str,
    StringConstraints(pattern=r"^(\d+|GPU-[0-9a-fA-F-]+|MIG-[0-9a-zA-Z/-]+)$"),
    BeforeValidator(_text),
    WithJsonSchema({"type": ["integer", "string"]}),
]
"""A GPU by its number in nvidia-smi, its UUID (GPU-...), or a MIG device (MIG-...)."""


Address = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?:[0-9]{1,5}$"), IsAddress]


class Engine(Section):
    """One vLLM process."""

    name: Name
    """Its name in headers, metrics and pages, and its host name in the cluster's network."""
    pool: Name
    """The pool it serves."""
    flavour: Flavour = "cuda"
    """What it runs on: cuda (vLLM on a GPU), cpu (vLLM on CPU), emulated (a stand-in with a GPU's timing)."""
    address: Address | None = None
    """Where it already runs, as host:port. null: Compose starts it on this host."""
    gpus: tuple[Gpu, ...] = ()
    """GPU numbers, UUIDs or MIG ids, More than one makes a tensor-parallel group."""
    weight: int = Field(1, ge=1, le=100)
    """Its part of the pool's requests: beside one of weight 1, an engine of weight 2 is given twice as many at a time."""
    max_in_flight: int | None = Field(None, ge=1, le=1_000_000)
    """Requests that the gateway gives it at a time. null: the pool's max_in_flight, else as many as it runs and queues."""
    endpoint: Endpoint | None = None
    """Its `address` is the adapter's, which asks this endpoint. null: it speaks OpenAI's API itself."""
    gpu_fraction: float = Field(1.0, gt=0, le=1)
    """The part of each of its GPUs' memory that it may take; below 1 when engines share a GPU."""
    tensor_parallel: int | None = Field(None, ge=1, le=16)
    """GPUs that work on one request together. null: all of `gpus`."""
    gpu_memory_gb: float | None = Field(None, gt=0)
    """Memory of one of its GPUs, in GiB, for choosing flags. null: as detected, else 24."""
    memory_gb: float | None = Field(None, gt=0)
    """Limit of host memory for the container, in GiB. null: by flavour and model."""
    shm_gb: float | None = Field(None, gt=0)
    """Size of /dev/shm in GiB. null: by flavour and tensor parallelism (vLLM hangs or crashes at Docker's 64 MB)."""
    time_shares_with: Name | None = None
    """An engine of another pool on the same GPUs: only one of the two runs at a time, and scaling hands the GPUs over."""
    vllm_flags: tuple[str, ...] = ()
    """Further flags for this engine, one string each: `--flag=value`. They come last, so they win."""

    @property
    def host(self) -> str:
        """The name or address to connect to; on Compose's network a service is reached by its name."""
        return self.address.rsplit(":", 1)[0] if self.address else self.name

    @property
    def port(self) -> int:
        return int(self.address.rsplit(":", 1)[1]) if self.address else ENGINE_PORT

    @property
    def parallel(self) -> int:
        return self.tensor_parallel or max(1, len(self.gpus))


DEFAULT_GPU_MEMORY_GB = 24.0


def max_num_seqs(pool: Pool, engine: Engine) -> int:
    """Requests that run at once: what the KV cache holds of about 1,500 tokens each, at 144 KiB a token, rounded down.

    24 GiB with 8B-FP8 leaves room for 47 such requests; below that vLLM would preempt.
    """
    if pool.max_num_seqs is not None:
        return pool.max_num_seqs
    if engine.flavour == "cpu":
        return 16
    memory = (engine.gpu_memory_gb or DEFAULT_GPU_MEMORY_GB) * engine.gpu_fraction * engine.parallel
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
