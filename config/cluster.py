"""The whole of cluster.yaml."""

from typing import Literal

from pydantic import Field

from config.engines import Engine
from config.gateway import Controller, Gateway, GpuSharing, Images, Models, Monitoring, Network, Shutdown, WebUi
from config.pools import Flavour, Pool
from config.section import Name, Section


class Cluster(Section):
    """Everything an operator may change. Secrets and host paths come from the environment instead."""

    name: Name = "manyeyes"
    """The Compose project: prefix of containers, network and volumes."""
    flavour: Literal["auto"] | Flavour = "auto"
    """With `engines: auto`: cuda where GPUs are found, else cpu. `make up FLAVOUR=` overrides it."""
    pools: tuple[Pool, ...] = Field(min_length=1)
    """One for every model name."""
    engines: Literal["auto"] | tuple[Engine, ...] = "auto"
    """auto: one engine per GPU found (on a host without: `cpu_engines`), dealt out to the pools by `gpu_weight`. Or a list."""
    cpu_engines: int = Field(2, ge=1, le=16)
    """With `engines: auto` on a host without GPUs: how many engines. Each takes about 1.5 GiB plus its model."""
    cpu_threads: int = Field(4, ge=1, le=256)
    """Threads of one engine on CPU; all engines together best have as many as there are cores. The tiny model takes one."""
    emulated_engines: int = Field(3, ge=1, le=64)
    """With `engines: auto` and the emulated flavour: how many GPUs are emulated."""
    gpu_sharing: GpuSharing = "time_slicing"
    """How engines with a `share` below 1 use one GPU: in turns, or at once through NVIDIA's MPS."""
    gateway: Gateway = Gateway()
    """Nginx."""
    controller: Controller = Controller()
    """Probes and membership."""
    webui: WebUi = WebUi()
    """The page."""
    monitoring: Monitoring = Monitoring()
    """Prometheus and Grafana."""
    network: Network = Network()
    """The cluster's network."""
    models: Models = Models()
    """Weights and caches."""
    shutdown: Shutdown = Shutdown()
    """How engines stop."""
    images: Images = Images()
    """Image pins."""

    def pool(self, name: str) -> Pool:
        """The pool called `name`; KeyError if there is none."""
        for pool in self.pools:
            if pool.name == name:
                return pool
        raise KeyError(name)

    @property
    def explicit_engines(self) -> tuple[Engine, ...]:
        """The engines, once the layout is made (see config.layout)."""
        if self.engines == "auto":
            raise ValueError("engines are `auto`: config.layout.lay_out() turns them into a list")
        return self.engines

    @property
    def started_engines(self) -> tuple[Engine, ...]:
        """The engines that Compose starts; the others run already, at their `address`."""
        return tuple(engine for engine in self.explicit_engines if engine.address is None)

    @property
    def served_pools(self) -> tuple[Pool, ...]:
        """The pools that have at least one engine, in the file's order."""
        served = {engine.pool for engine in self.explicit_engines}
        return tuple(pool for pool in self.pools if pool.name in served)
