"""A cluster of processes on the loopback address: emulated engines, the controller, the real nginx. No Docker, no GPU.

Each visit starts a new one, so that no cache is warm from the visit before. `manyeyes/devcluster/cluster.py` knows how the
controller and nginx are started; it is the one thing outside this room that the load test uses, and only here.
"""

import contextlib
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from loadtest.host_info import start_process_group
from loadtest.http_client import fetch
from loadtest.result_files import ROOT
from loadtest.scaling_report.backends import BackendError, BackendInfo
from manyeyes.devcluster.cluster import free_port, local_cluster

MODEL = "qwen3-vl-4b"
PROFILE = "rtx4090d-qwen3-vl-4b"
START_S = 12.0  # of an engine that died, on its own clock: with a warm compile cache; research and docs have 37 to 60 s
_BUSY = re.compile(r"^emulator:busy_seconds_total\{[^}]*\} ([0-9.eE+-]+)$", re.M)


def engine_command(port: int, flags: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "manyeyes.emulator", "--host=127.0.0.1", f"--port={port}", *flags]


@contextlib.contextmanager
def emulated_engines(folder: Path, model: str, count: int = 1, flags: Sequence[str] = ()) -> Iterator[list[str]]:
    """`count` new engines; yields their addresses when all are healthy. Raises BackendError."""
    # Routers keep idle connections for longer than vLLM's 5 s; as in this project's own engines.
    environment = {"VLLM_HTTP_TIMEOUT_KEEP_ALIVE": "75"}
    with contextlib.ExitStack() as stack:
        addresses = []
        for number in range(count):
            command = engine_command(port := free_port(), [f"--served-model-name={model}", "--start-seconds=0", *flags])
            stack.enter_context(start_process_group(command, folder / f"engine-{number}.log", environment, ROOT))
            addresses.append(f"127.0.0.1:{port}")
        wait_until_healthy(addresses, folder / "engine-0.log")
        yield addresses


def wait_until_healthy(addresses: Sequence[str], log: Path, within_s: float = 60.0) -> None:
    """Raises BackendError with the log's end."""
    deadline = time.monotonic() + within_s
    for address in addresses:
        while True:
            try:
                fetch(f"http://{address}/health", timeout_s=5)
                break
            except OSError as error:
                if time.monotonic() > deadline:
                    said = log.read_text(errors="replace").strip()[-300:]
                    raise BackendError(f"{address} did not start: {error}: {said}") from error
                time.sleep(0.05)


@dataclass
class EmulatedEngineProcess:
    """One emulated engine, started again when it ends by itself, as Compose's restart policy does."""

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
        """None while it is being started again."""
        try:
            found = _BUSY.search(fetch(f"http://127.0.0.1:{self.port}/metrics").decode())
        except OSError:
            return None
        return float(found.group(1)) if found else None

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
        found = {engine.name: engine.busy_s() for engine in self.engines}
        return {name: value for name, value in found.items() if value is not None}

    def died(self) -> int:
        return sum(engine.died for engine in self.engines)

    def set_memory_limit(self, on: bool) -> None:
        limit = {"kind": "out_of_memory", "frames": 10_000, "together": self.frames_together}
        for engine in self.engines:
            if on:
                engine.fault("POST", limit)
                # An engine that died comes back with the same limit.
                engine.more_flags = [f"--fault={json.dumps(limit)}"]
            else:
                engine.fault("DELETE", {})
                engine.more_flags = []


@dataclass
class ProcessBackend:
    """`speed`: the engines' clock against the wall's. `frames_together`: how many frames of videos an emulated engine holds
    before it runs out of memory, in the phase with videos."""

    speed: float = 1.0
    profile: str = PROFILE
    frames_together: int = 128
    kind: BackendInfo = field(init=False)

    def __post_init__(self) -> None:
        path = ROOT / f"manyeyes/simulator/profiles/{self.profile}.yaml"
        if not path.exists():
            known = ", ".join(sorted(file.stem for file in path.parent.glob("*.yaml")))
            raise BackendError(f"no profile {self.profile!r}; there are {known}")
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
        """Nothing is left of a visit when it is over."""
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
                    f"{count} emulated engines did not come up: {error}. Their logs are in {folder}."
                ) from None
            yield RunningProcesses(running.url, engines, 1 / self.speed, self.frames_together)
