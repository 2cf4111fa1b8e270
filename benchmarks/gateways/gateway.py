"""The description of a gateway in the comparison, how it is installed and started, and an HTTP client for its users."""

import asyncio
import contextlib
import os
import subprocess
import sys
import time
import urllib.error
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import cast

import httptools

from loadtest.host_info import members, start_process_group
from loadtest.http_client import ConnectionBroken, bearer, fetch
from loadtest.result_files import ROOT
from loadtest.virtual_user import CompletionStream
from manyeyes.devcluster.ports import free_port

BUILD = ROOT / "build/bench"
PINS = ROOT / "benchmarks/gateways/pins"


class NotInstalled(Exception):
    """A gateway is not available on this host. The message says why; the report repeats it."""


def from_pypi(name: str) -> Path:
    """Returns the virtual environment of benchmarks/gateways/pins/<name>.txt; creates it if it is missing or outdated."""
    pins = PINS / f"{name}.txt"
    folder = BUILD / "environments" / name
    installed_pins = folder / "pins.txt"
    if installed_pins.exists() and installed_pins.read_bytes() == pins.read_bytes():
        return folder
    print(f"  ..  installing {name} into {folder.relative_to(ROOT)}", flush=True)
    _install(name, sys.executable, "-m", "venv", "--clear", folder)
    _install(name, folder / "bin/python", "-m", "pip", "install", "-q", "--require-hashes", "-r", pins)
    installed_pins.write_bytes(pins.read_bytes())
    return folder


def pinned(name: str, package: str) -> str:
    for line in (PINS / f"{name}.txt").read_text().splitlines():
        if line.startswith(f"{package}=="):
            return line.split("==")[1].split()[0]
    raise LookupError(f"{PINS / name}.txt does not pin {package}")


def from_debian(name: str) -> Path:
    """Returns the wrapper script of a program from Debian unstable, unpacked by benchmarks/gateways/fetch-debian."""
    folder = BUILD / "debian" / name
    program = folder / name
    if not program.exists():
        print(f"  ..  downloading {name} into {folder.relative_to(ROOT)}", flush=True)
        _install(name, ROOT / "benchmarks/gateways/fetch-debian", name, folder)
    return program


def _install(name: str, *command: str | Path) -> None:
    """Runs an installation command. Raises NotInstalled with the last error of its log."""
    log = BUILD / f"install-{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        done = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, check=False)
    if done.returncode != 0:
        raise NotInstalled(f"{_last(log)} ({log.relative_to(ROOT)})")


def environment_for(folder: Path) -> dict[str, str]:
    """Environment variables for a program of a virtual environment, without this project's Python packages."""
    return {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": "", "VIRTUAL_ENV": str(folder)}


def _last(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")]
    return (errors or lines or ["its log is empty"])[-1][:300]


MODEL = "qwen3-vl-4b"
# The API key of all clients. LiteLLM does not start without a key.
KEY = "sk-bench-4f1c2b7a9d3e58604f1c2b7a9d3e5860"
START_S = 120.0


@dataclass(frozen=True)
class GatewaySetting:
    """A setting of a gateway, the reason for it, and the documentation or program that it comes from."""

    name: str
    reason: str
    source: str


@dataclass(frozen=True)
class RunningGateway:
    """A running gateway. `targets`: its address, host:port, or the addresses of all engines if clients choose an engine.

    `parts`: process sessions by name; requests pass the part "gateway".
    """

    targets: tuple[str, ...]
    parts: Mapping[str, int] = field(default_factory=dict)


Run = Callable[[Path, Sequence[str]], contextlib.AbstractContextManager[RunningGateway]]


@dataclass(frozen=True)
class BenchmarkedGateway:
    """`version` installs it and may raise NotInstalled. `run` takes a folder for its files and the engines' addresses.

    `headers`: its documented session headers, in order of priority. `leading`: whether it is the maker's first choice for
    chat; other variants of the same product run fewer kinds of work.
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
    """Runs the command that `make` returns for a folder, a port and the engines; yields after the first answered request."""

    @contextlib.contextmanager
    def run(folder: Path, engines: Sequence[str]) -> Iterator[RunningGateway]:
        port = free_port()
        log = folder / "gateway.log"
        with start_process_group(make(folder, port, engines), log, environment(), folder) as session:
            answers(f"127.0.0.1:{port}", lambda: bool(members(session)), log)
            yield RunningGateway((f"127.0.0.1:{port}",), {"gateway": session})

    return run


def answers(address: str, alive: Callable[[], bool], log: Path) -> None:
    """Waits until a chat request is answered. Raises RuntimeError with the end of the log if none is."""
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1}
    deadline = time.monotonic() + START_S
    problem = ""
    while time.monotonic() < deadline and alive():
        try:
            fetch(f"http://{address}/v1/chat/completions", body, bearer(KEY))
            return
        except urllib.error.HTTPError as error:
            problem = f"{error.code} {error.read()[:300].decode(errors='replace')}"
        except OSError as error:
            problem = str(error)
        time.sleep(0.1)
    raise RuntimeError(f"no answer from {address}: {problem}\n{log.read_text(errors='replace')[-3000:]}")


@dataclass
class HttpAnswer:
    """A response. Times are perf_counter() seconds. `pieces`: parts of the body, each with the time of its read."""

    started_s: float
    status: int = 0
    pieces: list[tuple[float, bytes]] = field(default_factory=list)
    ended_s: float = 0.0

    @property
    def body(self) -> bytes:
        return b"".join(piece for _, piece in self.pieces)


class AsyncConnection(asyncio.Protocol):
    """One keep-alive connection for one request at a time, which records when each piece of an answer arrives.

    It costs little CPU: a library would be the largest consumer in a run with thousands of streamed chunks a second.
    """

    def __init__(self, address: str, source: str | None = None) -> None:
        self._host, _, port = address.partition(":")
        self._port = int(port)
        self._source = source
        self._transport: asyncio.Transport | None = None
        self._done: asyncio.Future[HttpAnswer] | None = None
        self._answer = HttpAnswer(0)
        self._now = 0.0

    async def send(self, request: bytes, deadline_s: float = 180) -> HttpAnswer:
        """Sends a complete request and returns the complete answer. Raises ConnectionBroken, OSError or TimeoutError."""
        loop = asyncio.get_running_loop()
        if self._transport is None or self._transport.is_closing():
            local = (self._source, 0) if self._source else None
            await loop.create_connection(lambda: self, self._host, self._port, local_addr=local)
        assert self._transport is not None
        self._done = loop.create_future()
        self._parser = httptools.HttpResponseParser(self)
        self._answer = HttpAnswer(perf_counter())
        self._transport.write(request)
        try:
            async with asyncio.timeout(deadline_s):
                return await self._done
        except BaseException:
            self.close()
            raise
        finally:
            self._done = None

    def close(self) -> None:
        if self._transport:
            self._transport.abort()
            self._transport = None

    # --- callbacks of asyncio and httptools --------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._fail(str(error or "closed in the middle of an answer"))

    def data_received(self, data: bytes) -> None:
        self._now = perf_counter()
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(f"not HTTP: {error}")
            self.close()

    def on_body(self, content: bytes) -> None:
        self._answer.pieces.append((self._now, content))

    def on_message_complete(self) -> None:
        self._answer.status = self._parser.get_status_code()
        self._answer.ended_s = self._now
        if self._done and not self._done.done():
            self._done.set_result(self._answer)
        if not self._parser.should_keep_alive():
            self.close()

    def _fail(self, reason: str) -> None:
        if self._done and not self._done.done():
            self._done.set_exception(ConnectionBroken(reason))


def chat_request(address: str, body: bytes, headers: dict[str, str] | None = None) -> bytes:
    """A chat request with the API key, as OpenAI's client sends it."""
    more = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: {address}\r\nAccept: application/json\r\n"
        f"Authorization: Bearer {KEY}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n{more}\r\n"
    )
    return head.encode() + body


def read_streamed_chat(answer: HttpAnswer) -> CompletionStream:
    """Parses the events of an answer; each has the time of the read that completed it."""
    stream = CompletionStream()
    for now, piece in answer.pieces:
        stream.feed(now, piece)
    return stream
