"""Answers one request, from its body to the last byte: refused, streamed or whole."""

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from time import monotonic
from typing import Any
from uuid import uuid4

import orjson
from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive, Scope, Send

from engine.emulator import fields
from engine.emulator.engine import Engine
from engine.emulator.errors import RequestError, shutting_down
from engine.emulator.job import Job
from engine.emulator.options import Options
from engine.emulator.replies import Reply

ReadJob = Callable[[dict[str, Any], Options], Job]
JSON = b"application/json"
EVENTS = b"text/event-stream; charset=utf-8"


class Completions:
    """One of the two paths that generate."""

    def __init__(self, engine: Engine, read_job: ReadJob, *, is_chat: bool) -> None:
        self.engine = engine
        self.read_job = read_job
        self.kind = "chatcmpl" if is_chat else "cmpl"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """An ASGI application. Gives the work up when the client goes away."""
        request = Request(scope, receive)
        try:
            raw = await request.body()
        except ClientDisconnect:
            return
        work = asyncio.create_task(self.answer(request, raw, send))
        gone = asyncio.create_task(disconnected(receive))
        with self.engine.busy():
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
            gone.cancel()
            if not work.done():
                work.cancel()
                await asyncio.wait({work})
        if not work.cancelled():
            work.result()

    async def answer(self, request: Request, raw: bytes, send: Send) -> None:
        arrived = monotonic()
        engine = self.engine
        try:
            job = self.read_job(fields.read_body(raw, request.headers.get("content-type", "")), engine.options)
            del raw  # megabytes, for as long as the answer takes
            if engine.draining:
                raise shutting_down()
            engine.check_admission()
            await engine.render(job)
            if not job.stream:
                engine.check_admission()
        except RequestError as error:
            await reply_whole(send, error.status, orjson.dumps(error.body()))
            return
        own_id = request.headers.get("x-request-id") or uuid4().hex[:16]
        reply = Reply(job, f"{self.kind}-{own_id}", self.kind == "chatcmpl")
        await (self.stream if job.stream else self.whole)(reply, arrived, send)

    async def stream(self, reply: Reply, arrived: float, send: Send) -> None:
        """Token by token. Admission is checked again after rendering, when the status is on its way: as in vLLM."""
        await send(head(200, EVENTS))
        try:
            self.engine.check_admission()
        except RequestError as error:
            await send(body(reply.failure(error)))
            return
        job, sent = reply.job, 0
        sequence = self.engine.new_sequence(job, arrived)
        async with aclosing(self.engine.run(sequence)) as progress:
            async for ready in progress:
                events = [] if sent else [reply.opening()]
                for number in range(sent, ready):
                    last = number + 1 == len(job.answer)
                    events.append(reply.chunk(job.answer[number], job.finish_reason if last else None))
                sent = ready
                await send(body(b"".join(events), more=True))
        ending = b"" if sent == len(job.answer) else reply.chunk("", "abort")
        await send(body(ending + reply.closing(sent, sequence.cached)))

    async def whole(self, reply: Reply, arrived: float, send: Send) -> None:
        """The answer in one piece."""
        job, sent = reply.job, 0
        sequence = self.engine.new_sequence(job, arrived)
        async with aclosing(self.engine.run(sequence)) as progress:
            async for ready in progress:
                sent = ready
        finish_reason = job.finish_reason if sent == len(job.answer) else "abort"
        await reply_whole(send, 200, reply.whole(job.answer[:sent], finish_reason, sequence.cached))


async def disconnected(receive: Receive) -> None:
    """Return when the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def reply_whole(send: Send, status: int, content: bytes) -> None:
    await send(head(status, JSON, (b"content-length", str(len(content)).encode())))
    await send(body(content))


def head(status: int, content_type: bytes, *more: tuple[bytes, bytes]) -> dict[str, Any]:
    return {"type": "http.response.start", "status": status, "headers": [(b"content-type", content_type), *more]}


def body(content: bytes, *, more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": content, "more_body": more}
