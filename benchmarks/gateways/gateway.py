"""What every gateway of the comparison says of itself, and how one that is a command is run."""

import contextlib
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from loadtest.process_group import members, start_process_group
from manyeyes.devcluster.cluster import free_port

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
    body = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1}).encode()
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"}
    deadline = time.monotonic() + START_S
    said = ""
    while time.monotonic() < deadline and alive():
        request = urllib.request.Request(f"http://{address}/v1/chat/completions", body, headers)
        try:
            with urllib.request.urlopen(request, timeout=10) as reply:
                if reply.status == 200:
                    return
        except urllib.error.HTTPError as error:
            said = f"{error.code} {error.read()[:300].decode(errors='replace')}"
        except OSError as error:
            said = str(error)
        time.sleep(0.1)
    raise RuntimeError(f"no answer from {address}: {said}\n{log.read_text(errors='replace')[-3000:]}")
