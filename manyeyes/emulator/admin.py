"""Paths that are not for clients: sleep and wake as in vLLM (vllm/v1/engine/core.py), and faults on command. Open only when
asked for. Requests that come during sleep wait; /health stays 200."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Literal, get_args

import orjson
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from manyeyes.emulator import faults
from manyeyes.emulator.engine import EmulatedEngine
from manyeyes.emulator.log import log

PauseMode = Literal["abort", "wait", "keep"]
TAGS = {"weights", "kv_cache"}


class SleepMode:
    """Whether the engine sleeps: `level` is None while it is awake."""

    def __init__(self, engine: EmulatedEngine) -> None:
        self.engine = engine
        self.level: int | None = None
        self.awake: set[str] = set()
        """What of it was woken so far, by tag."""
        self.lost = False
        """Its weights are: level 2 dropped them, and nobody has read them again. vLLM would answer noise."""

    async def begin(self, level: int, mode: PauseMode) -> None:
        """0 only stops the scheduler, 1 moves the weights to the host, 2 drops them; 1 and 2 empty all caches."""
        engine = self.engine
        if level:
            engine.renderer.cache.forget()
        engine.core.pause(new_only=mode != "keep")
        if mode == "abort":
            engine.abort_all()
        if mode == "wait":
            await engine.resting.wait()
        self.level = level
        self.awake.clear()
        self.lost = self.lost or level == 2
        if level:
            engine.core.forget()
            await asyncio.sleep(engine.options.profile.sleep_s)
        engine.metrics.show_sleep(level)

    def reload_weights(self) -> bool:
        """False while there is no memory for them."""
        if self.level and "weights" not in self.awake:
            return False
        self.lost = self.engine.weightless = False
        return True

    async def end(self, tags: list[str]) -> bool:
        """Says whether the engine is awake: with tags it is when all there is was named, at once or one after the other."""
        self.awake |= set(tags)
        if self.level and tags and not self.awake >= TAGS:
            return False
        if self.level:
            await asyncio.sleep(self.engine.options.profile.wake_s)
        self.level = None
        self.engine.weightless = self.lost
        self.engine.resume()
        self.engine.metrics.show_sleep(None)
        return True


Handler = Callable[[Request], Awaitable[Response]]


def routes(engine: EmulatedEngine) -> list[Route]:
    """Those that the command line opened."""
    found = []
    if engine.options.sleep_mode:
        found += sleep_routes(SleepMode(engine))
    if engine.options.faults_on_command:
        found += fault_routes(engine.faults)
    return found


def sleep_routes(sleep: SleepMode) -> list[Route]:
    async def begin(request: Request) -> Response:
        level, mode = request.query_params.get("level", "1"), request.query_params.get("mode", "abort")
        if level not in ("0", "1", "2") or mode not in get_args(PauseMode):
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
