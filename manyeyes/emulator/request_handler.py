"""Answers one request, from its body to the last byte: with an error, as a stream or as one document."""

import asyncio
import os
from collections.abc import Callable
from contextlib import aclosing
from time import monotonic
from typing import Any
from uuid import uuid4

import orjson
from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from manyeyes.emulator import requests
from manyeyes.emulator.cli import EmulatorOptions
from manyeyes.emulator.engine import EmulatedEngine
from manyeyes.emulator.log import log
from manyeyes.emulator.responses import (
    ENGINE_DEAD,
    ON_COMMAND,
    SHUTTING_DOWN,
    CompletionResponse,
    RequestError,
    internal_error,
)
from manyeyes.simulator.request import EngineRequest

ReadJob = Callable[[dict[str, Any], EmulatorOptions], EngineRequest]
JSON = b"application/json"
EVENTS = b"text/event-stream; charset=utf-8"


class CompletionHandler:
    """ASGI application for one of the two paths that generate text."""

    def __init__(self, engine: EmulatedEngine, read_job: ReadJob, *, is_chat: bool) -> None:
        self.engine = engine
        self.read_job = read_job
        self.is_chat = is_chat

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers the request. It cancels the work if the client disconnects."""
        raw = await read_body(receive)
        if raw is None:
            return
        headers = Headers(scope=scope)
        arrived = monotonic()
        try:
            job = self.accept(raw, headers.get("content-type", ""))
        except RequestError as error:
            await reply_error(send, error)
            return
        del raw  # megabytes, for as long as the answer takes
        own_id = headers.get("x-request-id") or uuid4().hex[:16]
        reply_id = f"{'chatcmpl' if self.is_chat else 'cmpl'}-{own_id}"
        reply = CompletionResponse(job, reply_id, self.is_chat, self.engine.options.prompt_tokens_details)
        if self.engine.options.log_requests:
            log("request_received", request=own_id, trace=trace_of(headers.get("traceparent", "")) or None)
        work = asyncio.create_task(self.answer(reply, arrived, send))
        disconnect = asyncio.create_task(disconnected(receive))
        with self.engine.busy():
            await asyncio.wait({work, disconnect}, return_when=asyncio.FIRST_COMPLETED)
            disconnect.cancel()
            if not work.done():
                work.cancel()
                await asyncio.wait({work})
                if self.engine.options.log_requests:
                    log("request_aborted", request=own_id)
        if not work.cancelled():
            work.result()

    def accept(self, raw: bytes, content_type: str) -> EngineRequest:
        """Checks the request before any emulated time passes. Raises RequestError."""
        engine = self.engine
        if (status := engine.faults.refused_status()) is not None:
            raise internal_error(ON_COMMAND, status)
        job = self.read_job(requests.parse_body(raw, content_type), engine.options)
        if engine.dead:
            raise internal_error(ENGINE_DEAD)
        if engine.draining:
            raise internal_error(SHUTTING_DOWN)
        engine.check_admission()
        return job

    async def answer(self, reply: CompletionResponse, arrived: float, send: Send) -> None:
        engine, job = self.engine, reply.job
        await engine.render(job)
        if engine.faults.poisons(job):
            log("killed", "error", fault="poison")
            os._exit(1)
        if engine.faults.exhausts_memory(job, engine.frames_in_prefill):
            log("died", "error", fault="out_of_memory")
            engine.die()
        await (self.stream if job.stream else self.whole)(reply, arrived, send)

    async def stream(self, reply: CompletionResponse, arrived: float, send: Send) -> None:
        """Sends the answer token by token.

        As in vLLM, the limits of the queue are checked again after preprocessing, when the status has already been
        sent: the client then finds the error in a stream with status 200.
        """
        job, sent = reply.job, 0
        cut_at = self.engine.faults.tokens_until_cut()
        await send(head(200, EVENTS))
        try:
            sequence = self.engine.new_sequence(job, arrived)
            async with aclosing(self.engine.run(sequence)) as progress:
                async for ready in progress:
                    if cut_at is not None and ready > cut_at:
                        return  # the stream has no end: the server closes the connection
                    events = [] if sent else [reply.opening()]
                    for number in range(sent, ready):
                        last = number + 1 == len(job.answer)
                        events.append(reply.chunk(job.answer[number], job.finish_reason if last else None))
                    sent = ready
                    await send(body(b"".join(events), more=True))
        except RequestError as error:
            await send(body(reply.failure(error)))
            return
        ending = b"" if sent == len(job.answer) else reply.chunk("", "abort")
        await send(body(ending + reply.closing(sent, sequence.cached)))

    async def whole(self, reply: CompletionResponse, arrived: float, send: Send) -> None:
        job, sent = reply.job, 0
        cut = self.engine.faults.tokens_until_cut() is not None
        try:
            sequence = self.engine.new_sequence(job, arrived)
            async with aclosing(self.engine.run(sequence)) as progress:
                async for ready in progress:
                    sent = ready
        except RequestError as error:
            await reply_error(send, error)
            return
        finish_reason = job.finish_reason if sent == len(job.answer) else "abort"
        content = reply.whole(job.answer[:sent], finish_reason, sequence.cached)
        if cut:
            await send(head(200, JSON, length=len(content)))
            await send(body(content[: len(content) // 2], more=True))
            return
        await reply_whole(send, 200, content)


async def read_body(receive: Receive) -> bytes | None:
    """The complete body, or None if the client disconnected before its end."""
    parts = []
    while (message := await receive())["type"] == "http.request":
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)
    return None


async def disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def reply_error(send: Send, error: RequestError) -> None:
    await reply_whole(send, error.status, orjson.dumps(error.body()))


async def reply_whole(send: Send, status: int, content: bytes) -> None:
    await send(head(status, JSON, length=len(content)))
    await send(body(content))


def head(status: int, content_type: bytes, *, length: int | None = None) -> dict[str, Any]:
    headers = [(b"content-type", content_type)]
    if length is not None:
        headers.append((b"content-length", str(length).encode()))
    return {"type": "http.response.start", "status": status, "headers": headers}


def body(content: bytes, *, more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": content, "more_body": more}


def trace_of(traceparent: str) -> str:
    """The trace id, which the emulator logs instead of sending a span; empty if there is none."""
    parts = traceparent.split("-")
    return parts[1] if len(parts) == 4 else ""
