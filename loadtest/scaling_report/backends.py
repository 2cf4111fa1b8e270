"""Clusters that the scaling report can scale to a number of engines.

`ComposeBackend` is the running Compose cluster, scaled by `make scale`. `ProcessBackend` is a cluster of processes on the
loopback address (emulated engines, the controller, the real nginx; no Docker, no GPU). It is started again for each visit,
so that every visit begins with cold caches.
"""

import contextlib
import json
import re
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol

import yaml

from loadtest.gateway_client import GatewayClient
from loadtest.host_info import members, query_gpus, start_process_group
from loadtest.http_client import fetch
from loadtest.result_files import ROOT
from manyeyes.devcluster.cluster import local_cluster
from manyeyes.devcluster.ports import free_port


class BackendError(Exception):
    """The cluster could not be scaled to that number of engines. The message says why and what to do."""


class RunningBackend(Protocol):
    """A cluster with all its engines up. `busy_s`: seconds that each engine's GPU has worked so far; empty if unknown.

    `died`: how many times an engine has crashed.
    """

    url: str
    key: str
    trusted: str

    def busy_s(self) -> dict[str, float]: ...
    def died(self) -> int: ...
    def set_memory_limit(self, on: bool) -> None: ...


@dataclass(frozen=True)
class BackendInfo:
    """Description for the report. `slowdown`: wall-clock seconds per second of the engines' clock."""

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
        """Restores the state before the first visit. Returns a sentence if that failed, else an empty string."""


SCALE = "make scale N={count} POOL={pool}"
UP_S = 600.0
SETTLED_S = 2.0  # nginx resolves the members once a second


class RunningCompose:
    """The running Compose cluster. The busy time of each GPU comes from nvidia-smi's utilization; empty without a driver."""

    def __init__(self, url: str, key: str, trusted: str) -> None:
        self.url, self.key, self.trusted = url, key, trusted
        self._busy: dict[str, float] = {}
        self._at = 0.0
        self._read()

    def busy_s(self) -> dict[str, float]:
        self._read()
        return dict(self._busy)

    def died(self) -> int:
        return 0  # Compose restarts an engine automatically; failed requests show that it crashed

    def set_memory_limit(self, on: bool) -> None:
        """Does nothing: real engines have their own limit."""

    def _read(self) -> None:
        now = time.monotonic()
        passed, self._at = (now - self._at if self._at else 0.0), now
        for line in query_gpus("index,utilization.gpu"):
            index, _, use = line.partition(",")
            name = f"GPU {index.strip()}"
            self._busy[name] = self._busy.get(name, 0.0) + passed * float(use) / 100


@dataclass
class ComposeBackend:
    """`scale` is the command that scales `pool` to {count} engines; it may return before they are up."""

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
        details: dict[str, Any] = {"pool": self.pool, "scale": self.scale}
        self.kind = BackendInfo("compose", self.gpu, self.pool, self.emulated, 1.0, details)

    def leave(self) -> str:
        """Scales back to the original number of engines."""
        if not self._before:
            return ""
        try:
            self._scale(self._before, subprocess.DEVNULL)
        except BackendError as error:
            return f"{self.pool} could not be scaled back to {self._before} engines: {error}"
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
                    f"{self.pool}: expected {count} engines to be up after {UP_S:.0f} s, got {up}. See `make status`."
                )
            time.sleep(0.5)
        time.sleep(SETTLED_S)
        yield RunningCompose(self.url, self.key, self.trusted)

    def _scale(self, count: int, log: IO[bytes] | int, output: Path | None = None) -> None:
        command = self.scale.format(count=count, pool=self.pool)
        ended = subprocess.run(shlex.split(command), cwd=ROOT, stdout=log, stderr=log, check=False)
        if ended.returncode:
            last = output.read_text(errors="replace").strip().splitlines()[-1:] if output else []
            raise BackendError(f"`{command}` exited with code {ended.returncode}: {' '.join(last)}")


MODEL = "qwen3-vl-4b"
PROFILE = "rtx4090d-qwen3-vl-4b"
# Seconds of the engines' clock to restart a crashed engine with a warm compile cache; research and docs report 37 to 60 s.
START_S = 12.0
_BUSY = re.compile(r"^emulator:busy_seconds_total\{[^}]*\} ([0-9.eE+-]+)$", re.M)


def engine_command(port: int, flags: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "manyeyes.emulator", "--host=127.0.0.1", f"--port={port}", *flags]


@contextlib.contextmanager
def emulated_engines(folder: Path, model: str, count: int = 1, flags: Sequence[str] = ()) -> Iterator[list[str]]:
    """Starts `count` engines and yields their addresses when all are healthy. Raises BackendError."""
    # Routers use idle connections for longer than vLLM's default of 5 s. This project's engines have the same setting.
    environment = {"VLLM_HTTP_TIMEOUT_KEEP_ALIVE": "75"}
    with contextlib.ExitStack() as stack:
        addresses, sessions = [], []
        for number in range(count):
            log = folder / f"engine-{number}.log"
            command = engine_command(port := free_port(), [f"--served-model-name={model}", "--start-seconds=0", *flags])
            sessions.append(stack.enter_context(start_process_group(command, log, environment, ROOT)))
            addresses.append(f"127.0.0.1:{port}")
        wait_until_healthy(addresses, folder / "engine-0.log", lambda: all(map(members, sessions)))
        yield addresses


def wait_until_healthy(
    addresses: Sequence[str], log: Path, is_alive: Callable[[], bool] = lambda: True, within_s: float = 60.0
) -> None:
    """Waits until every engine answers /health. Raises BackendError with the end of the log."""
    deadline = time.monotonic() + within_s
    for address in addresses:
        while True:
            try:
                fetch(f"http://{address}/health", timeout_s=5)
                break
            except OSError as error:
                if time.monotonic() > deadline or not is_alive():
                    output = log.read_text(errors="replace").strip()[-300:]
                    raise BackendError(f"{address} did not start: {error}: {output}") from error
                time.sleep(0.05)


@dataclass
class EmulatedEngineProcess:
    """One emulated engine. It is restarted when it exits unexpectedly, as by Compose's restart policy."""

    name: str
    port: int
    flags: list[str]
    log: Path
    died: int = 0
    more_flags: list[str] = field(default_factory=list)
    _process: subprocess.Popen[bytes] | None = None
    _ending: bool = False
    _thread: threading.Thread | None = None

    def start(self) -> None:
        self._run(0.0)
        self._thread = threading.Thread(target=self._keep, daemon=True)
        self._thread.start()

    def _run(self, start_s: float) -> None:
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                engine_command(self.port, [*self.flags, *self.more_flags, f"--start-seconds={start_s:g}"]),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                start_new_session=True,
            )

    def _keep(self) -> None:
        while not self._ending:
            assert self._process is not None
            self._process.wait()
            if not self._ending:
                self.died += 1
                self._run(START_S)

    def end(self) -> None:
        self._ending = True
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
        if self._thread is not None:
            self._thread.join(timeout=10)

    def busy_s(self) -> float | None:
        """Returns None while the engine restarts."""
        try:
            match = _BUSY.search(fetch(f"http://127.0.0.1:{self.port}/metrics").decode())
        except OSError:
            return None
        return float(match.group(1)) if match else None

    def fault(self, method: str, body: dict[str, object]) -> None:
        with contextlib.suppress(OSError):
            fetch(f"http://127.0.0.1:{self.port}/emulator/faults", body or None, method=method)


@dataclass
class RunningProcesses:
    url: str
    engines: list[EmulatedEngineProcess]
    slowdown: float
    frames_together: int
    key: str = ""
    trusted: str = ""

    def busy_s(self) -> dict[str, float]:
        busy = {engine.name: engine.busy_s() for engine in self.engines}
        return {name: value for name, value in busy.items() if value is not None}

    def died(self) -> int:
        return sum(engine.died for engine in self.engines)

    def set_memory_limit(self, on: bool) -> None:
        limit = {"kind": "out_of_memory", "frames": 10_000, "together": self.frames_together}
        for engine in self.engines:
            if on:
                engine.fault("POST", limit)
                # A restarted engine has the same limit.
                engine.more_flags = [f"--fault={json.dumps(limit)}"]
            else:
                engine.fault("DELETE", {})
                engine.more_flags = []


@dataclass
class ProcessBackend:
    """`speed`: the engines' clock relative to the wall clock.

    `frames_together`: how many video frames an emulated engine can hold in the video phase before it runs out of memory.
    """

    speed: float = 1.0
    profile: str = PROFILE
    frames_together: int = 128
    kind: BackendInfo = field(init=False)

    def __post_init__(self) -> None:
        path = ROOT / f"manyeyes/simulator/profiles/{self.profile}.yaml"
        if not path.exists():
            known = ", ".join(sorted(file.stem for file in path.parent.glob("*.yaml")))
            raise BackendError(f"unknown profile {self.profile!r}. Use one of {known}")
        profile = yaml.safe_load(path.read_text())
        self.kind = BackendInfo(
            name="processes",
            gpu=profile["gpu"],
            model=profile["model"],
            emulated=True,
            slowdown=1 / self.speed,
            about={"profile": self.profile, "speed": self.speed, "frames_together": self.frames_together},
        )

    def leave(self) -> str:
        """Nothing to restore: each visit cleans up after itself."""
        return ""

    @contextlib.contextmanager
    def at(self, count: int, folder: Path) -> Iterator[RunningProcesses]:
        flags = [
            *("--served-model-name", MODEL, f"--profile={self.profile}", f"--speed={self.speed:g}", "--faults"),
            *("--max-num-seqs=48", "--max-num-queued-reqs=96", '--limit-mm-per-prompt={"image":4,"video":1}'),
        ]
        engines = [
            EmulatedEngineProcess(f"gpu-{n}", free_port(), flags, folder / f"engine-{n}.log") for n in range(count)
        ]
        addresses = {engine.name: f"127.0.0.1:{engine.port}" for engine in engines}
        document = {
            "pools": [{"name": MODEL, "model": "Qwen/Qwen3-VL-4B-Instruct"}],
            "engines": [{"name": name, "pool": MODEL} for name in addresses],
            "controller": {},
        }
        with contextlib.ExitStack() as stack:
            for engine in engines:
                stack.callback(engine.end)
                engine.start()
            running = stack.enter_context(local_cluster(folder, document, addresses=addresses, prints_logs=False))
            try:
                running.all_up(set(addresses), within_s=60)
                running.answers_from(MODEL, set(addresses), within_s=60)
            except AssertionError as error:
                raise BackendError(
                    f"{count} emulated engines did not start: {error}. Their logs are in {folder}."
                ) from None
            yield RunningProcesses(running.url, engines, 1 / self.speed, self.frames_together)
