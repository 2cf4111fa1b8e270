"""The HTTP side: vLLM's paths, on Starlette."""

import asyncio
from collections.abc import Sequence

import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from manyeyes.emulator import admin, chat, cli, completions, lifecycle, responses
from manyeyes.emulator.engine import Engine
from manyeyes.emulator.request_handler import Completions

VERSION = "0.32.0+emulated"  # the vLLM whose behaviour this follows


def json(content: bytes, status: int = 200) -> Response:
    return Response(content, status, media_type="application/json")


class Server:
    """The handlers of one engine."""

    def __init__(self, engine: Engine) -> None:
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
                Route("/v1/chat/completions", Completions(self.engine, chat.read_job, is_chat=True), methods=["POST"]),
                Route(
                    "/v1/completions", Completions(self.engine, completions.read_job, is_chat=False), methods=["POST"]
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
        return json(orjson.dumps({"server_load": self.engine.under_way if self.engine.options.load_tracking else 0}))

    async def version(self, request: Request) -> Response:
        return json(orjson.dumps({"version": VERSION}))

    async def metrics(self, request: Request) -> Response:
        await self._loop_turns()
        return Response(self.engine.metrics.text(), media_type="text/plain; version=0.0.4")

    async def models(self, request: Request) -> Response:
        return json(responses.models(self.engine.options))


async def not_found(request: Request, error: Exception) -> Response:
    """For paths and methods that do not exist: FastAPI's form, as in vLLM."""
    status = getattr(error, "status_code", 404)
    return json(orjson.dumps({"detail": getattr(error, "detail", "Not Found")}), status)


def main(arguments: Sequence[str]) -> int:
    """Run one engine until it is told to stop. Returns the exit code."""
    chosen = cli.parse(arguments)
    return lifecycle.run(chosen, lambda engine: Server(engine).app())
