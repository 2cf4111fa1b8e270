"""The HTTP side: vLLM's paths, on Starlette, from the start of the process (slow to open its port) to its end (on SIGTERM as
slow to close it as vLLM)."""

import asyncio
import signal
import socket
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager

import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from manyeyes.emulator import admin, cli, requests, responses
from manyeyes.emulator.cli import EmulatorOptions
from manyeyes.emulator.engine import EmulatedEngine
from manyeyes.emulator.log import libraries_too, log
from manyeyes.emulator.request_handler import CompletionHandler

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


def run(options: EmulatorOptions, make_app: Callable[[EmulatedEngine], Starlette]) -> int:
    """Serve until SIGTERM or SIGINT. Returns the exit code."""
    libraries_too()
    uvloop_factory = uvicorn.Config("", loop="uvloop").get_loop_factory()
    with asyncio.Runner(loop_factory=uvloop_factory) as runner:
        return runner.run(serve(options, make_app))


async def serve(options: EmulatorOptions, make_app: Callable[[EmulatedEngine], Starlette]) -> int:
    """Start, serve, drain, end."""
    told_to_stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told_to_stop.set)

    if await wait_for_first(told_to_stop, options.start_s):
        return 0
    try:
        listener = listen(options.host, options.port)
    except OSError as error:
        where = f"{options.host}:{options.port}"
        print(f"Could not listen on {where}: {error.strerror}. Give another --host or --port.", file=sys.stderr)
        return 1

    port = listener.getsockname()[1]
    engine = EmulatedEngine(options)
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
    doors = asyncio.create_task(serve_until_stopped(engine, http, options.host, port))
    death = asyncio.create_task(engine.died.wait())
    stop = asyncio.create_task(told_to_stop.wait())
    await asyncio.wait({death, stop}, return_when=asyncio.FIRST_COMPLETED)
    doors.cancel()
    aborted = 0
    if engine.dead:
        log("dead", "error")
        await wait_for_first(told_to_stop, engine.exit_s)
    else:
        log("draining", running=engine.running, waiting=engine.waiting)
        aborted = await drain(engine, options.shutdown_timeout_s)
    http.should_exit = True
    await serving
    log("stopped", aborted=aborted)
    return int(engine.dead)


async def serve_until_stopped(engine: EmulatedEngine, http: HttpServer, host: str, port: int) -> None:
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


async def drain(engine: EmulatedEngine, within_s: float) -> int:
    """Admit nothing, wait for what is under way, then abort the rest. Says how many those were."""
    engine.draining = True
    if await wait_for_first(engine.idle, within_s):
        return 0
    left = engine.running + engine.waiting
    engine.abort_all()
    return left


def listen(host: str, port: int) -> socket.socket:
    """The socket to serve on. Raises OSError when it cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=2048)


async def wait_for_first(event: asyncio.Event, within_s: float) -> bool:
    """Whether `event` is set before the time is up."""
    try:
        await asyncio.wait_for(event.wait(), within_s)
    except TimeoutError:
        return event.is_set()  # no time at all is too short for wait_for even when there is nothing to wait for
    return True


VERSION = "0.32.0+emulated"  # the vLLM whose behaviour this follows


def json_response(content: bytes, status: int = 200) -> Response:
    return Response(content, status, media_type="application/json")


class EmulatorServer:
    """The handlers of one engine."""

    def __init__(self, engine: EmulatedEngine) -> None:
        self.engine = engine

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/health", self.health),
                Route("/ping", self.health, methods=["GET", "POST"]),
                Route("/load", self.load),
                Route("/version", self.version),
                Route("/metrics", self.metrics),
                Route("/v1/models", self.models),
                Route(
                    "/v1/chat/completions",
                    CompletionHandler(self.engine, requests.read_chat, is_chat=True),
                    methods=["POST"],
                ),
                Route(
                    "/v1/completions",
                    CompletionHandler(self.engine, requests.read_completion, is_chat=False),
                    methods=["POST"],
                ),
                *admin.routes(self.engine),
            ],
            exception_handlers={404: not_found, 405: not_found},
        )

    async def health(self, request: Request) -> Response:
        """200 as long as the engine core lives, while it shuts down or sleeps too; late while it renders. As in vLLM."""
        await self._loop_turns()
        await self.engine.responsive.wait()
        return Response(status_code=503 if self.engine.dead else 200)

    async def _loop_turns(self) -> None:
        """Whatever is asked shares one event loop with the requests in rendering, so it is answered as late as /health."""
        await asyncio.sleep(self.engine.renderer.health_s)

    async def load(self, request: Request) -> Response:
        """Every request that is not answered yet, those in rendering too. Without the flag vLLM always says 0."""
        await self._loop_turns()
        return json_response(
            orjson.dumps({"server_load": self.engine.under_way if self.engine.options.load_tracking else 0})
        )

    async def version(self, request: Request) -> Response:
        return json_response(orjson.dumps({"version": VERSION}))

    async def metrics(self, request: Request) -> Response:
        await self._loop_turns()
        return Response(self.engine.metrics.text(), media_type="text/plain; version=0.0.4")

    async def models(self, request: Request) -> Response:
        return json_response(responses.models_body(self.engine.options))


async def not_found(request: Request, error: Exception) -> Response:
    """For paths and methods that do not exist: FastAPI's form, as in vLLM."""
    status = getattr(error, "status_code", 404)
    return json_response(orjson.dumps({"detail": getattr(error, "detail", "Not Found")}), status)


def main(arguments: Sequence[str]) -> int:
    """Run one engine until it is told to stop. Returns the exit code."""
    chosen = cli.parse(arguments)
    return run(chosen, lambda engine: EmulatorServer(engine).app())
