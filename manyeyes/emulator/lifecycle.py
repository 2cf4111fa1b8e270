"""From the start of the process to its end: slow to open its port, and on SIGTERM as slow to close it as vLLM."""

import asyncio
import signal
import socket
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager

import uvicorn
from starlette.applications import Starlette

from manyeyes.emulator.cli import Options
from manyeyes.emulator.engine import Engine
from manyeyes.emulator.log import libraries_too, log

LAST_BYTES_S = 2  # for clients that do not read their answer to its end


class HttpServer(uvicorn.Server):
    """uvicorn without its own signals: it closes the port at once, vLLM keeps it open while it drains."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.opened = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.opened.set()

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


def run(options: Options, make_app: Callable[[Engine], Starlette]) -> int:
    """Serve until SIGTERM or SIGINT. Returns the exit code."""
    libraries_too()
    uvloop_factory = uvicorn.Config("", loop="uvloop").get_loop_factory()
    with asyncio.Runner(loop_factory=uvloop_factory) as runner:
        return runner.run(serve(options, make_app))


async def serve(options: Options, make_app: Callable[[Engine], Starlette]) -> int:
    """Start, serve, drain, end."""
    told_to_stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told_to_stop.set)

    if await happens(told_to_stop, options.start_s):
        return 0
    try:
        listener = listen(options.host, options.port)
    except OSError as error:
        where = f"{options.host}:{options.port}"
        print(f"Could not listen on {where}: {error.strerror}. Give another --host or --port.", file=sys.stderr)
        return 1

    port = listener.getsockname()[1]
    engine = Engine(options)
    http = HttpServer(
        uvicorn.Config(
            make_app(engine),
            http="httptools",
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="warning",
            access_log=False,
            timeout_keep_alive=options.keep_alive_s,
            timeout_graceful_shutdown=LAST_BYTES_S,
        )
    )
    serving = asyncio.create_task(http.serve([listener]))
    await http.opened.wait()
    log(
        "listening",
        port=port,
        models=options.served_model_name,
        timing="constant" if options.constants else f"{options.profile.gpu}, {options.profile.model}, emulated",
        kv_cache_tokens=options.kv_cache_tokens,
    )
    for kind, values in options.faults:
        engine.faults.begin(kind, values)
    doors = asyncio.create_task(keep_doors(engine, http, options.host, port))
    death = asyncio.create_task(engine.died.wait())
    stop = asyncio.create_task(told_to_stop.wait())
    await asyncio.wait({death, stop}, return_when=asyncio.FIRST_COMPLETED)
    doors.cancel()
    aborted = 0
    if engine.dead:
        log("dead", "error")
        await happens(told_to_stop, engine.exit_s)
    else:
        log("draining", running=engine.running, waiting=engine.waiting)
        aborted = await drain(engine, options.shutdown_timeout_s)
    http.should_exit = True
    await serving
    log("stopped", aborted=aborted)
    return int(engine.dead)


async def keep_doors(engine: Engine, http: HttpServer, host: str, port: int) -> None:
    """Close the port while the fault `refuse` is on, with every connection that is or becomes idle."""
    while True:
        await engine.refusing.wait()
        for listening in http.servers:
            listening.close()
        for connection in list(http.server_state.connections):
            connection.shutdown()
        while engine.refusing.is_set():
            await engine.reopened.wait()
        await http.startup([listen(host, port)])


async def drain(engine: Engine, within_s: float) -> int:
    """Admit nothing, wait for what is under way, then abort the rest. Says how many those were."""
    engine.draining = True
    if await happens(engine.idle, within_s):
        return 0
    left = engine.running + engine.waiting
    engine.abort_all()
    return left


def listen(host: str, port: int) -> socket.socket:
    """The socket to serve on. Raises OSError when it cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=2048)


async def happens(event: asyncio.Event, within_s: float) -> bool:
    """Whether `event` is set before the time is up."""
    try:
        await asyncio.wait_for(event.wait(), within_s)
    except TimeoutError:
        return event.is_set()  # no time at all is too short for wait_for even when there is nothing to wait for
    return True
