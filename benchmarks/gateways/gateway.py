"""What every gateway of the comparison says of itself, and how one that is a command is run."""

import contextlib
import os
import subprocess
import sys
import time
import urllib.error
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from loadtest.host_info import members, start_process_group
from loadtest.http_client import bearer, fetch
from loadtest.result_files import ROOT
from manyeyes.devcluster.cluster import free_port

BUILD = ROOT / "build/bench"
PINS = ROOT / "benchmarks/gateways/pins"


class NotInstalled(Exception):
    """A gateway cannot be had here; the message says why, and the report repeats it."""


def from_pypi(name: str) -> Path:
    """The folder of a virtual environment with bench/gateways/pins/<name>.txt, made when it is missing or outdated."""
    pins = PINS / f"{name}.txt"
    folder = BUILD / "environments" / name
    mark = folder / "pins.txt"
    if mark.exists() and mark.read_bytes() == pins.read_bytes():
        return folder
    print(f"  ..  {name} is installed into {folder.relative_to(ROOT)}", flush=True)
    _install(name, sys.executable, "-m", "venv", "--clear", folder)
    _install(name, folder / "bin/python", "-m", "pip", "install", "-q", "--require-hashes", "-r", pins)
    mark.write_bytes(pins.read_bytes())
    return folder


def pinned(name: str, package: str) -> str:
    for line in (PINS / f"{name}.txt").read_text().splitlines():
        if line.startswith(f"{package}=="):
            return line.split("==")[1].split()[0]
    raise LookupError(f"{PINS / name}.txt does not pin {package}")


def from_debian(name: str) -> Path:
    """The wrapper of a program from Debian unstable, unpacked by benchmarks/gateways/fetch-debian."""
    folder = BUILD / "debian" / name
    program = folder / name
    if not program.exists():
        print(f"  ..  {name} is fetched into {folder.relative_to(ROOT)}", flush=True)
        _install(name, ROOT / "benchmarks/gateways/fetch-debian", name, folder)
    return program


def _install(name: str, *command: str | Path) -> None:
    """Raises NotInstalled with the last error of its log."""
    log = BUILD / f"install-{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        done = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, check=False)
    if done.returncode != 0:
        raise NotInstalled(f"{_last(log)} ({log.relative_to(ROOT)})")


def environment_for(folder: Path) -> dict[str, str]:
    """For a program of a virtual environment: nothing of this project's own Python."""
    return {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": "", "VIRTUAL_ENV": str(folder)}


def _last(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")]
    return (errors or lines or ["no word of why"])[-1][:300]


MODEL = "qwen3-vl-4b"
# What every client sends as its key, the same for all of them; LiteLLM does not start without one.
KEY = "sk-bench-4f1c2b7a9d3e58604f1c2b7a9d3e5860"
START_S = 120.0


@dataclass(frozen=True)
class GatewaySetting:
    """One thing that was chosen, the reason, and the page or program that it comes from."""

    what: str
    why: str
    source: str


@dataclass(frozen=True)
class RunningGateway:
    """A gateway that answers. `targets` has one address, host:port, or every engine's where clients choose themselves.

    `parts` are sessions of processes by name; "gateway" is the part that requests pass.
    """

    targets: tuple[str, ...]
    parts: Mapping[str, int] = field(default_factory=dict)


Run = Callable[[Path, Sequence[str]], contextlib.AbstractContextManager[RunningGateway]]


@dataclass(frozen=True)
class BenchmarkedGateway:
    """`version` installs it, and raises NotInstalled; `run` takes a folder for its files and the engines' addresses.

    `headers`: the session headers that it documents, the first one first. `leading`: its maker's first choice for chat;
    the others of the same product run on fewer kinds of work.
    """

    name: str
    product: str
    version: Callable[[], str]
    run: Run
    settings: tuple[GatewaySetting, ...]
    headers: tuple[str, ...] = ()
    leading: bool = True


Command = Callable[[Path, int, Sequence[str]], list[str]]


def command(make: Command, environment: Callable[[], Mapping[str, str]] = dict) -> Run:
    """Runs what `make` returns for a folder, a port and the engines; yields once a first request was answered."""

    @contextlib.contextmanager
    def run(folder: Path, engines: Sequence[str]) -> Iterator[RunningGateway]:
        port = free_port()
        log = folder / "gateway.log"
        with start_process_group(make(folder, port, engines), log, environment(), folder) as session:
            answers(f"127.0.0.1:{port}", lambda: bool(members(session)), log)
            yield RunningGateway((f"127.0.0.1:{port}",), {"gateway": session})

    return run


def answers(address: str, alive: Callable[[], bool], log: Path) -> None:
    """Waits until a chat request is answered. Raises RuntimeError with the log's end when that does not happen."""
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1}
    deadline = time.monotonic() + START_S
    said = ""
    while time.monotonic() < deadline and alive():
        try:
            fetch(f"http://{address}/v1/chat/completions", body, bearer(KEY))
            return
        except urllib.error.HTTPError as error:
            said = f"{error.code} {error.read()[:300].decode(errors='replace')}"
        except OSError as error:
            said = str(error)
        time.sleep(0.1)
    raise RuntimeError(f"no answer from {address}: {said}\n{log.read_text(errors='replace')[-3000:]}")
