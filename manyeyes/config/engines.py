"""The settings of one engine (one vLLM process), and the number of requests that it runs and queues."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, StringConstraints, WithJsonSchema

from manyeyes.config.custom_endpoint import Endpoint
from manyeyes.config.fields import IsAddress, Name, Section
from manyeyes.config.pools import EnvironmentVariable, Flavour, Pool

ENGINE_PORT = 8000
"""Port of every engine that Compose starts, inside the cluster's network."""


def _text(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Gpu = Annotated[
    str,
    StringConstraints(pattern=r"^(\d+|GPU-[0-9a-fA-F-]+|MIG-[0-9a-zA-Z/-]+)$"),
    BeforeValidator(_text),
    WithJsonSchema({"type": ["integer", "string"]}),
]
"""A GPU, by its number in nvidia-smi, its UUID (GPU-...) or its MIG device (MIG-...)."""


Address = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?:[0-9]{1,5}$"), IsAddress]


class Engine(Section):
    """One vLLM process on one GPU, on a tensor-parallel group of GPUs, or on a share of a GPU."""

    name: Name
    """Name in headers, metrics and pages, and host name in the cluster's network."""
    pool: Name
    """The pool that the engine serves."""
    flavour: Flavour = "cuda"
    """What the engine runs on: cuda (vLLM on a GPU), cpu (vLLM on CPU), or emulated (an emulator with the timing of a
    GPU)."""
    address: Address | None = None
    """Address of an engine that already runs, as host:port. null: Compose starts the engine on this host."""
    gpus: tuple[Gpu, ...] = ()
    """GPU numbers, UUIDs or MIG ids. More than one GPU makes a tensor-parallel group."""
    weight: int = Field(1, ge=1, le=100)
    """Relative share of the pool's requests. An engine of weight 2 gets twice as many concurrent requests as one of
    weight 1."""
    max_in_flight: int | None = Field(None, ge=1, le=1_000_000)
    """Maximum concurrent requests that the gateway sends to the engine. null: the pool's max_in_flight, else the number
    that the engine runs and queues."""
    endpoint: Endpoint | None = None
    """An external endpoint behind the adapter; `address` is then the adapter's. null: the engine implements OpenAI's
    API."""
    gpu_fraction: float = Field(1.0, gt=0, le=1)
    """Share of the memory of each GPU that the engine may use. Set it below 1 if engines share a GPU."""
    tensor_parallel: int | None = Field(None, ge=1, le=16)
    """Number of GPUs that process one request together. null: all of `gpus`."""
    gpu_memory_gb: float | None = Field(None, gt=0)
    """Memory of one GPU, in GiB, for choosing flags. null: as detected, else 24."""
    gpu_memory_utilization: float | None = Field(None, gt=0, le=0.98)
    """Share of each GPU's memory that vLLM may use. null: 0.92, or less if other programs used the GPU when `make up`
    ran."""
    memory_gb: float | None = Field(None, gt=0)
    """Limit of the container's host memory, in GiB. null: depends on flavour and model."""
    shm_gb: float | None = Field(None, gt=0)
    """Size of /dev/shm, in GiB. null: depends on flavour and tensor parallelism. vLLM hangs or crashes at Docker's
    default of 64 MB."""
    time_shares_with: Name | None = None
    """An engine of another pool on the same GPUs. Only one of the two runs at a time; autoscaling switches between
    them."""
    vllm_flags: tuple[str, ...] = ()
    """Additional vLLM flags, one string each: `--flag=value`. They come last, so they override other flags."""
    environment: tuple[EnvironmentVariable, ...] = ()
    """Additional environment variables, one string each: `NCCL_P2P_DISABLE=1`. They override those of the pool."""

    @property
    def host(self) -> str:
        """Host name or IP address to connect to. In Compose's network a service has its name as host name."""
        return self.address.rsplit(":", 1)[0] if self.address else self.name

    @property
    def port(self) -> int:
        return int(self.address.rsplit(":", 1)[1]) if self.address else ENGINE_PORT

    @property
    def parallel(self) -> int:
        return self.tensor_parallel or max(1, len(self.gpus))


DEFAULT_GPU_MEMORY_GB = 24.0


def max_num_seqs(pool: Pool, engine: Engine) -> int:
    """Returns the number of requests that run at the same time: the requests of about 1,500 tokens that fit into the KV
    cache.

    Computed at 144 KiB per token and rounded down. On 24 GiB with an 8B-FP8 model 47 such requests fit; with more, vLLM
    preempts requests.
    """
    if pool.max_num_seqs is not None:
        return pool.max_num_seqs
    if engine.flavour == "cpu":
        return 16
    memory = (engine.gpu_memory_gb or DEFAULT_GPU_MEMORY_GB) * engine.gpu_fraction * engine.parallel
    for min_memory, sequences in ((140, 512), (70, 256), (40, 128), (22, 48), (15, 24)):
        if memory >= min_memory:
            return sequences
    return 12


def in_flight(pool: Pool, engine: Engine) -> int:
    """Returns the maximum concurrent requests of an engine: those it runs, and as many that it queues (on CPU three
    times)."""
    if engine.max_in_flight is not None:
        return engine.max_in_flight
    if pool.max_in_flight is not None:
        return pool.max_in_flight
    return (4 if engine.flavour == "cpu" else 2) * max_num_seqs(pool, engine)


def capacities(pool: Pool, engines: tuple[Engine, ...]) -> dict[str, int]:
    return {engine.name: in_flight(pool, engine) for engine in engines if engine.pool == pool.name}


def max_num_batched_tokens(pool: Pool, engine: Engine) -> int:
    """Returns the maximum number of tokens per iteration.

    A 1080p image has 2,040 tokens. With vLLM's default of 2,048 tokens on smaller GPUs, images would be prefilled one
    by one.
    """
    memory = engine.gpu_memory_gb or DEFAULT_GPU_MEMORY_GB
    return max(8192 if memory >= 40 else 4096, _largest_item(pool))


def _largest_item(pool: Pool) -> int:
    """Returns the vision tokens of the largest image or video in a request, rounded up to a multiple of 1,024.

    The image processor of Qwen3-VL in transformers 5.19 computes the size of frames for 4 of 5 frames and then pads to
    6, so a short video has up to 1.5 times the tokens of the limit.
    """
    media = pool.media
    video = media.frame_max_pixels * media.video_frames // 2 * 3 // 2 if media.videos_per_prompt else 0
    tokens = max(media.max_pixels, video) // 1024
    return -(-tokens // 1024) * 1024


def nearest_rendered_capacity(pool: Pool, engine: Engine, configured: tuple[Engine, ...]) -> int:
    """Returns the maximum concurrent requests of an engine that is not in the rendered gateway files.

    Those files group the members of a pool by capacity, so a new capacity would need new files. The engine gets the
    largest capacity of the pool's configured engines that does not exceed its own, else the smallest. A pool without
    configured engines has one capacity for all registered engines.
    """
    rendered = sorted(set(capacities(pool, configured).values())) or [
        in_flight(pool, Engine(name=pool.name, pool=pool.name))
    ]
    return max((capacity for capacity in rendered if capacity <= in_flight(pool, engine)), default=rendered[0])
