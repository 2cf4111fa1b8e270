"""Paths that are not for clients: sleep and wake as in vLLM, and faults on command. Open only when asked for."""

from collections.abc import Awaitable, Callable
from typing import get_args

import orjson
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from manyeyes.emulator import faults
from manyeyes.emulator.engine import Engine
from manyeyes.emulator.log import log
from manyeyes.emulator.sleep import Mode, Sleep

Handler = Callable[[Request], Awaitable[Response]]


def routes(engine: Engine) -> list[Route]:
    """Those that the command line opened."""
    found = []
    if engine.options.sleep_mode:
        found += sleep_routes(Sleep(engine))
    if engine.options.faults_on_command:
        found += fault_routes(engine.faults)
    return found


def sleep_routes(sleep: Sleep) -> list[Route]:
    async def begin(request: Request) -> Response:
        level, mode = request.query_params.get("level", "1"), request.query_params.get("mode", "abort")
        if level not in ("0", "1", "2") or mode not in get_args(Mode):
            return JSONResponse({"detail": "level wants 0, 1 or 2; mode wants abort, wait or keep"}, 422)
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
            return JSONResponse({"detail": f"no method {method} here"}, 422)
        if not sleep.reload_weights():
            return JSONResponse({"detail": "wake its weights first"}, 500)
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
            kind, values = faults.parse(orjson.loads(await request.body()))
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
