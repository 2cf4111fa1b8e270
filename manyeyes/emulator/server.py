"""Serves vLLM's paths with Starlette. As with vLLM, the port opens some time after the start, and stays open during the
drain after SIGTERM."""

import asyncio
import signal
import socket
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import get_args

import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from manyeyes.emulator import cli, faults, requests, responses
from manyeyes.emulator.cli import EmulatorOptions
from manyeyes.emulator.engine import EmulatedEngine
from manyeyes.emulator.log import libraries_too, log
from manyeyes.emulator.request_handler import CompletionHandler
from manyeyes.emulator.sleep_mode import PauseMode, SleepMode


def routes(engine: EmulatedEngine) -> list[Route]:
    """The optional routes that the command line enables."""
    enabled = []
    if engine.options.sleep_mode:
        enabled += sleep_routes(SleepMode(engine))
    if engine.options.faults_on_command:
        enabled += fault_routes(engine.faults)
    return enabled


def sleep_routes(sleep: SleepMode) -> list[Route]:
    async def begin(request: Request) -> Response:
        level, mode = request.query_params.get("level", "1"), request.query_params.get("mode", "abort")
        if level not in ("0", "1", "2") or mode not in get_args(PauseMode):
            return JSONResponse({"detail": "level: expected 0, 1 or 2; mode: expected abort, wait or keep"}, 422)
        await sleep.begin(int(level), mode)  # type: ignore[arg-type]
        return JSONResponse({"status": "sleeping", "level": int(level)})

    async def end(request: Request) -> Response:
        tags = request.query_params.getlist("tags")
        awake = await sleep.end(tags)
        return JSONResponse({"status": "awake" if awake else "sleeping", "tags": tags or None})

    async def asleep(request: Request) -> Response:
        return JSONResponse({"is_sleeping": sleep.level is not None})

    async def rpc(request: Request) -> Response:
        method = orjson.loads(await request.body()).get("method")
        if method != "reload_weights":
            return JSONResponse({"detail": f"unknown method {method}"}, 422)
        if not sleep.reload_weights():
            return JSONResponse({"detail": "wake the weights first"}, 500)
        return JSONResponse({"results": [None]})

    async def reset_prefix_cache(request: Request) -> Response:
        sleep.engine.core.forget()
        return Response()

    return [
        Route("/collective_rpc", rpc, methods=["POST"]),
        Route("/reset_prefix_cache", reset_prefix_cache, methods=["POST"]),
        Route("/sleep", begin, methods=["POST"]),
        Route("/wake_up", end, methods=["POST"]),
        Route("/is_sleeping", asleep),
    ]


def fault_routes(state: faults.Faults) -> list[Route]:
    async def show(request: Request) -> Response:
        return JSONResponse(state.on)

    async def begin(request: Request) -> Response:
        try:
            kind, values = faults.parse_fault(orjson.loads(await request.body()))
        except ValueError as error:
            return JSONResponse({"detail": str(error)}, 422)
        log("fault_begins", kind=kind)
        state.begin(kind, values)
        return JSONResponse(state.on)

    async def end(request: Request) -> Response:
        if kind := request.query_params.get("kind"):
            state.end(kind)
        else:
            state.end_all()
        return JSONResponse(state.on)

    path = "/emulator/faults"
    return [Route(path, show), Route(path, begin, methods=["POST"]), Route(path, end, methods=["DELETE"])]


LAST_BYTES_S = 2  # time limit for clients that do not read their answer completely


class HttpServer(uvicorn.Server):
    """uvicorn without signal handlers: it would close the port immediately, while vLLM leaves it open during the
    drain."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.opened = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.opened.set()

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


async def serve(options: EmulatorOptions) -> int:
    stop_requested = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop_requested.set)

    if await wait_for_first(stop_requested, options.start_s):
        return 0
    try:
        listener = listen(options.host, options.port)
    except OSError as error:
        address = f"{options.host}:{options.port}"
        print(f"Could not listen on {address}: {error.strerror}. Give another --host or --port.", file=sys.stderr)
        return 1

    port = listener.getsockname()[1]
    engine = EmulatedEngine(options)
    http = HttpServer(
        uvicorn.Config(
            EmulatorServer(engine).app(),
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
    stop = asyncio.create_task(stop_requested.wait())
    await asyncio.wait({death, stop}, return_when=asyncio.FIRST_COMPLETED)
    doors.cancel()
    aborted = 0
    if engine.dead:
        log("dead", "error")
        await wait_for_first(stop_requested, engine.exit_s)
    else:
        log("draining", running=engine.running, waiting=engine.waiting)
        aborted = await drain(engine, options.shutdown_timeout_s)
    http.should_exit = True
    await serving
    log("stopped", aborted=aborted)
    return int(engine.dead)


async def serve_until_stopped(engine: EmulatedEngine, http: HttpServer, host: str, port: int) -> None:
    """Closes the port and all idle connections while the fault `refuse` is active."""
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
    """Admits no requests, waits for running requests, then aborts the rest. Returns the number of aborted requests."""
    engine.draining = True
    if await wait_for_first(engine.idle, within_s):
        return 0
    remaining = engine.running + engine.waiting
    engine.abort_all()
    return remaining


def listen(host: str, port: int) -> socket.socket:
    """The listening socket. Raises OSError if the address is not available."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=2048)


async def wait_for_first(event: asyncio.Event, within_s: float) -> bool:
    """Whether `event` is set within the time."""
    try:
        await asyncio.wait_for(event.wait(), within_s)
    except TimeoutError:
        return event.is_set()  # with a timeout of 0, wait_for times out even if the event is set
    return True


VERSION = "0.32.0+emulated"  # the vLLM version that is emulated


def json_response(content: bytes, status: int = 200) -> Response:
    return Response(content, status, media_type="application/json")


class EmulatorServer:
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
                *routes(self.engine),
            ],
            exception_handlers={404: not_found, 405: not_found},
        )

    async def health(self, request: Request) -> Response:
        """200 while the engine core is alive, including during shutdown and sleep; late during preprocessing.

        As in vLLM.
        """
        await self._loop_turns()
        await self.engine.responsive.wait()
        return Response(status_code=503 if self.engine.dead else 200)

    async def _loop_turns(self) -> None:
        """Waits as long as /health: all paths share one event loop with the requests in preprocessing."""
        await asyncio.sleep(self.engine.renderer.health_s)

    async def load(self, request: Request) -> Response:
        """Number of requests without a complete answer, including those in preprocessing.

        Without the flag it is always 0, as in vLLM.
        """
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
    """Answer for unknown paths and methods, in FastAPI's format as in vLLM."""
    status = getattr(error, "status_code", 404)
    return json_response(orjson.dumps({"detail": getattr(error, "detail", "Not Found")}), status)


def main(arguments: Sequence[str]) -> int:
    """Serves until SIGTERM or SIGINT. Returns the exit code."""
    options = cli.parse(arguments)
    libraries_too()
    uvloop_factory = uvicorn.Config("", loop="uvloop").get_loop_factory()
    with asyncio.Runner(loop_factory=uvloop_factory) as runner:
        return runner.run(serve(options))
