"""What the scaling report measures on: something that can be brought to a number of engines. A protocol, and the running
Compose cluster, scaled by `make scale`; process_backend.py has the other one."""

import contextlib
import shlex
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol

from loadtest.gateway_client import GatewayClient
from loadtest.host_info import query_gpus
from loadtest.result_files import ROOT


class BackendError(Exception):
    """The cluster could not be brought to that number of engines; the text says why and what to do."""


class RunningBackend(Protocol):
    """A cluster with its number of engines up. `busy_s`: how long each engine's GPU has worked so far; none where nobody
    can tell. `died`: how often an engine has ended by itself."""

    url: str
    key: str
    trusted: str

    def busy_s(self) -> dict[str, float]: ...
    def died(self) -> int: ...
    def set_memory_limit(self, on: bool) -> None: ...


@dataclass(frozen=True)
class BackendInfo:
    """For the page. `slowdown`: wall seconds per second of the engines' clock."""

    name: str
    gpu: str
    model: str
    emulated: bool
    slowdown: float
    about: dict[str, Any]


class Backend(Protocol):
    kind: BackendInfo

    def at(self, count: int, folder: Path) -> contextlib.AbstractContextManager[RunningBackend]: ...
    def leave(self) -> str:
        """Everything as it was before the first visit; returns a sentence where that could not be."""


SCALE = "make scale N={count} POOL={pool}"
UP_S = 600.0
SETTLED_S = 2.0  # nginx asks for members once a second


class RunningCompose:
    """Running, as the protocol has it. Seconds that each GPU worked are from NVIDIA's own counter, read once a second;
    nothing where there is no driver."""

    def __init__(self, url: str, key: str, trusted: str) -> None:
        self.url, self.key, self.trusted = url, key, trusted
        self._busy: dict[str, float] = {}
        self._at = 0.0
        self._read()

    def busy_s(self) -> dict[str, float]:
        self._read()
        return dict(self._busy)

    def died(self) -> int:
        return 0  # Compose starts an engine again by itself; errors and lost answers tell

    def set_memory_limit(self, on: bool) -> None:
        """Real engines have their own."""

    def _read(self) -> None:
        now = time.monotonic()
        passed, self._at = (now - self._at if self._at else 0.0), now
        for line in query_gpus("index,utilization.gpu"):
            index, _, use = line.partition(",")
            name = f"GPU {index.strip()}"
            self._busy[name] = self._busy.get(name, 0.0) + passed * float(use) / 100


@dataclass
class ComposeBackend:
    """`scale` is the command that brings `pool` to {count} engines; it may return before they are up."""

    url: str
    key: str
    trusted: str
    pool: str
    gpu: str
    emulated: bool
    scale: str = SCALE
    kind: BackendInfo = field(init=False)
    _before: int = 0

    def __post_init__(self) -> None:
        about: dict[str, Any] = {"pool": self.pool, "scale": self.scale}
        self.kind = BackendInfo("compose", self.gpu, self.pool, self.emulated, 1.0, about)

    def leave(self) -> str:
        """Back to as many engines as there were."""
        if not self._before:
            return ""
        try:
            self._scale(self._before, subprocess.DEVNULL)
        except BackendError as error:
            return f"{self.pool} could not be brought back to {self._before} engines: {error}"
        return ""

    @contextlib.contextmanager
    def at(self, count: int, folder: Path) -> Iterator[RunningCompose]:
        gateway = GatewayClient(self.url, self.key, self.trusted)
        self._before = self._before or len(gateway.up_in(self.pool))
        with (folder / "scale.log").open("ab") as log:
            self._scale(count, log, folder / "scale.log")
        deadline = time.monotonic() + UP_S
        while (up := len(gateway.up_in(self.pool))) != count:
            if time.monotonic() > deadline:
                raise BackendError(
                    f"after {UP_S:.0f} s {up} engines of {self.pool} are up, wanted {count}; see `make status`"
                )
            time.sleep(0.5)
        time.sleep(SETTLED_S)
        yield RunningCompose(self.url, self.key, self.trusted)

    def _scale(self, count: int, log: IO[bytes] | int, said: Path | None = None) -> None:
        command = self.scale.format(count=count, pool=self.pool)
        ended = subprocess.run(shlex.split(command), cwd=ROOT, stdout=log, stderr=log, check=False)
        if ended.returncode:
            last = said.read_text(errors="replace").strip().splitlines()[-1:] if said else []
            raise BackendError(f"`{command}` ended with {ended.returncode}: {' '.join(last)}")
