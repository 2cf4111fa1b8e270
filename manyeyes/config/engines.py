"""An engine: one vLLM process on one GPU, a tensor-parallel group, or a share of a GPU."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, StringConstraints, WithJsonSchema

from manyeyes.config.base import Name, Section
from manyeyes.config.custom_endpoint import Endpoint
from manyeyes.config.hosts import IsAddress
from manyeyes.config.pools import Flavour

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
    share: float = Field(1.0, gt=0, le=1)
    """The part of each of its GPUs' memory that it may take; below 1 when engines share a GPU."""
    tensor_parallel: int | None = Field(None, ge=1, le=16)
    """GPUs that work on one request together. null: all of `gpus`."""
    gpu_memory_gb: float | None = Field(None, gt=0)
    """Memory of one of its GPUs, in GiB, for choosing flags. null: as detected, else 24."""
    memory_gb: float | None = Field(None, gt=0)
    """Limit of host memory for the container, in GiB. null: by flavour and model."""
    shm_gb: float | None = Field(None, gt=0)
    """Size of /dev/shm in GiB. null: by flavour and tensor parallelism (vLLM hangs or crashes at Docker's 64 MB)."""
    instead_of: Name | None = None
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
