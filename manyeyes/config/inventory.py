"""What a host has: the input of `engines: auto`."""

from pydantic import Field

from manyeyes.config.base import Section
from manyeyes.config.pools import Flavour


class HostGpu(Section):
    """One GPU as nvidia-smi tells it."""

    index: int = Field(ge=0)
    """Number in nvidia-smi."""
    uuid: str = ""
    """GPU-... or empty where unknown."""
    name: str = "unknown GPU"
    """Product name."""
    memory_gb: float = Field(24, gt=0)
    """Total memory in GiB."""


class Inventory(Section):
    """Read by `make up`, written beside what is rendered, so that every part lays out the same engines."""

    flavour: Flavour = "cuda"
    """What engines run on here."""
    gpus: tuple[HostGpu, ...] = ()
    """GPUs, in nvidia-smi's order."""
    missing_models: tuple[str, ...] = ()
    """Models whose weights can be had neither from the volume nor from the hub."""


DEFAULT = Inventory(flavour="cuda", gpus=(HostGpu(index=0), HostGpu(index=1)))
"""What the committed rendering assumes, so that a plain `docker compose up` works: two GPUs of 24 GiB."""
