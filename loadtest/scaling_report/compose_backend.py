"""The running Compose cluster, brought to a number of engines by `make scale`."""

import contextlib
import shlex
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from loadtest.gateway_client import Gateway
from loadtest.host_info import ROOT
from loadtest.scaling_report.backends import Kind, NoCluster

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
    _before: int = 0

    def __post_init__(self) -> None:
        about: dict[str, Any] = {"pool": self.pool, "scale": self.scale}
        self.kind = Kind("compose", self.gpu, self.pool, self.emulated, 1.0, about)

    def leave(self) -> str:
        """Back to as many engines as there were."""
        if not self._before:
            return ""
        try:
            self._scale(self._before, subprocess.DEVNULL)
        except NoCluster as error:
            return f"{self.pool} could not be brought back to {self._before} engines: {error}"
        return ""

    @contextlib.contextmanager
    def at(self, count: int, folder: Path) -> Iterator[Scaled]:
        gateway = Gateway(self.url, self.key, self.trusted)
        self._before = self._before or len(gateway.up_in(self.pool))
        with (folder / "scale.log").open("ab") as log:
            self._scale(count, log, folder / "scale.log")
        deadline = time.monotonic() + UP_S
        while (up := len(gateway.up_in(self.pool))) != count:
            if time.monotonic() > deadline:
                raise NoCluster(
                    f"after {UP_S:.0f} s {up} engines of {self.pool} are up, wanted {count}; see `make status`"
                )
            time.sleep(0.5)
        time.sleep(SETTLED_S)
        yield Scaled(self.url, self.key, self.trusted, GpuUse())

    def _scale(self, count: int, log: IO[bytes] | int, said: Path | None = None) -> None:
        command = self.scale.format(count=count, pool=self.pool)
        ended = subprocess.run(shlex.split(command), cwd=ROOT, stdout=log, stderr=log, check=False)
        if ended.returncode:
            last = said.read_text(errors="replace").strip().splitlines()[-1:] if said else []
            raise NoCluster(f"`{command}` ended with {ended.returncode}: {' '.join(last)}")
