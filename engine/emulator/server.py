"""The HTTP side: vLLM's paths, on Starlette."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Any
from uuid import uuid4

import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from engine.emulator import chat, completions, fields, lifecycle, options, replies
from engine.emulator.engine import Engine
from engine.emulator.errors import RequestError, busy, shutting_down
from engine.emulator.job import Job
from engine.emulator.options import Options

VERSION = "0.32.0+emulated"  # the vLLM whose behaviour this follows

ReadJob = Callable[[dict[str, Any], Options], Job]


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
                Route("/v1/chat/completions", self.chat, methods=["POST"]),
                Route("/v1/completions", self.completions, methods=["POST"]),
            ],
            exception_handlers={404: not_found, 405: not_found},
        )

    async def health(self, request: Request) -> Response:
        """200 as long as the process lives, while it shuts down too: vLLM does the same."""
        return Response()

    async def load(self, request: Request) -> Response:
        return json(orjson.dumps({"server_load": self.engine.running + self.engine.waiting}))

    async def version(self, request: Request) -> Response:
        return json(orjson.dumps({"version": VERSION}))

    async def metrics(self, request: Request) -> Response:
        return Response(self.engine.metrics.text(), media_type="text/plain; version=0.0.4")

    async def models(self, request: Request) -> Response:
        return json(replies.models(self.engine.options))

    async def chat(self, request: Request) -> Response:
        return await self.complete(request, chat.read_job, is_chat=True)

    async def completions(self, request: Request) -> Response:
        return await self.complete(request, completions.read_job, is_chat=False)

    async def complete(self, request: Request, read_job: ReadJob, *, is_chat: bool) -> Response:
        """Answer one request: refused, streamed or whole."""
        raw = await request.body()
        try:
            body = fields.read_body(raw, request.headers.get("content-type", ""))
            job = read_job(body, self.engine.options)
            if self.engine.draining:
                raise shutting_down()
            if self.engine.full:
                raise busy()
        except RequestError as error:
            return json(orjson.dumps(error.body()), error.status)
        own_id = request.headers.get("x-request-id") or uuid4().hex[:16]
        reply = replies.Reply(job, f"{'chatcmpl' if is_chat else 'cmpl'}-{own_id}", is_chat)
        if job.stream:
            return StreamingResponse(self.stream(reply), media_type="text/event-stream")
        return await self.whole(reply, request)

    async def stream(self, reply: replies.Reply) -> AsyncGenerator[bytes, None]:
        """The events of one answer. Starlette cancels this when the client goes away."""
        job, sent = reply.job, 0
        async with aclosing(self.engine.run(job)) as progress:
            async for ready in progress:
                events = [] if sent else [reply.opening()]
                for number in range(sent, ready):
                    last = number + 1 == len(job.tokens)
                    events.append(reply.chunk(job.tokens[number], job.finish_reason if last else None))
                sent = ready
                yield b"".join(events)
        if sent < len(job.tokens):
            yield reply.chunk("", "abort")
        yield reply.closing(sent)

    async def whole(self, reply: replies.Reply, request: Request) -> Response:
        """The answer in one piece, given up when the client goes away before it is there."""
        work = asyncio.create_task(self.count(reply.job))
        gone = asyncio.create_task(disconnected(request))
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                return Response(status_code=499)  # nobody reads it
            sent = work.result()
        finally:
            work.cancel()
            gone.cancel()
        finish_reason = reply.job.finish_reason if sent == len(reply.job.tokens) else "abort"
        return json(reply.whole(reply.job.tokens[:sent], finish_reason))

    async def count(self, job: Job) -> int:
        """Let the whole answer come; says how many tokens there are."""
        sent = 0
        async with aclosing(self.engine.run(job)) as progress:
            async for ready in progress:
                sent = ready
        return sent


async def disconnected(request: Request) -> None:
    """Return when the client has gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def not_found(request: Request, error: Exception) -> Response:
    """For paths and methods that do not exist: FastAPI's form, as in vLLM."""
    status = getattr(error, "status_code", 404)
    return json(orjson.dumps({"detail": getattr(error, "detail", "Not Found")}), status)


def main(arguments: Sequence[str]) -> int:
    """Run one engine until it is told to stop. Returns the exit code."""
    chosen = options.parse(arguments)
    return lifecycle.run(chosen, lambda engine: Server(engine).app())
