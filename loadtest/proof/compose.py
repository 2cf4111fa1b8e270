"""The running Compose cluster, brought to a number of engines by `make scale`."""

import contextlib
import shlex
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loadtest.gateway import Gateway
from loadtest.machine import ROOT
from loadtest.proof.clusters import Kind, NoCluster

SCALE = "make scale N={count} POOL={pool}"
UP_S = 600.0
SETTLED_S = 2.0  # nginx asks for members once a second


@dataclass
class Scaled:
    """Running, as the protocol has it."""

    url: str
    key: str
    trusted: str
    _gpu: "GpuUse"

    def busy_s(self) -> dict[str, float]:
        return self._gpu.busy_s()

    def died(self) -> int:
        return 0  # Compose starts an engine again by itself; errors and lost answers tell

    def set_memory_limit(self, on: bool) -> None:
        """Real engines have their own."""


class GpuUse:
    """Seconds that each GPU worked, from NVIDIA's own counter read once a second; nothing where there is no driver."""

    def __init__(self) -> None:
        self._busy: dict[str, float] = {}
        self._at = 0.0
        self._read()

    def busy_s(self) -> dict[str, float]:
        self._read()
        return dict(self._busy)

    def _read(self) -> None:
        query = ["nvidia-smi", "--query-gpu=index,utilization.gpu", "--format=csv,noheader,nounits"]
        try:
            said = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True).stdout
        except (OSError, subprocess.SubprocessError):
            return
        now = time.monotonic()
        passed, self._at = (now - self._at if self._at else 0.0), now
        for line in said.splitlines():
            index, _, use = line.partition(",")
            name = f"GPU {index.strip()}"
            self._busy[name] = self._busy.get(name, 0.0) + passed * float(use) / 100


@dataclass
class Compose:
    """`scale` is the command that brings `pool` to {count} engines; it may return before they are up."""

    url: str
    key: str
    trusted: str
    pool: str
    gpu: str
    emulated: bool
    scale: str = SCALE
    kind: Kind = field(init=False)

    def __post_init__(self) -> None:
        about: dict[str, Any] = {"pool": self.pool, "scale": self.scale}
        self.kind = Kind("compose", self.gpu, self.pool, self.emulated, 1.0, about)

    @contextlib.contextmanager
    def at(self, count: int, folder: Path) -> Iterator[Scaled]:
        command = self.scale.format(count=count, pool=self.pool)
        with (folder / "scale.log").open("ab") as log:
            ended = subprocess.run(shlex.split(command), cwd=ROOT, stdout=log, stderr=log, check=False)
        if ended.returncode:
            last = (folder / "scale.log").read_text(errors="replace").strip().splitlines()[-1:]
            raise NoCluster(f"`{command}` ended with {ended.returncode}: {' '.join(last)}")
        gateway = Gateway(self.url, self.key, self.trusted)
        deadline = time.monotonic() + UP_S
        while (up := len(gateway.up_in(self.pool))) != count:
            if time.monotonic() > deadline:
                raise NoCluster(
                    f"after {UP_S:.0f} s {up} engines of {self.pool} are up, wanted {count}; see `make status`"
                )
            time.sleep(0.5)
        time.sleep(SETTLED_S)
        yield Scaled(self.url, self.key, self.trusted, GpuUse())
