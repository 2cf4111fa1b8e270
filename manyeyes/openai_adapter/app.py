"""Serves one endpoint as an engine for the gateway: OpenAI's chat completions, /health, and an engine's metrics, on a
separate port."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import orjson
import structlog
from starlette.types import Message, Receive, Scope, Send

from manyeyes.openai_adapter import request_mapping
from manyeyes.openai_adapter.config import AdaptedEngine, AdapterConfig
from manyeyes.openai_adapter.request_mapping import ChatRequest
from manyeyes.openai_adapter.response_mapping import DONE, ChatCompletion, sse_event
from manyeyes.openai_adapter.upstream import EndpointClient
from manyeyes.openai_error import ApiError

log = structlog.get_logger()
HEALTH_TIMEOUT_S = 5.0
T = TypeVar("T")


QUOTES = frozenset({"endpoint_failed", "endpoint_refuses_request"})
"""Error codes whose messages quote the endpoint."""


class ClientDisconnected(Exception):
    """The client disconnected."""


class EndpointApp:
    """The ASGI application of one port.

    `take` changes its configuration; running requests finish with the previous configuration.
    """

    def __init__(self, book: AdapterConfig, engine: AdaptedEngine, secrets: Path) -> None:
        self.secrets = secrets
        self.running = 0
        self.answered = 0
        self.tokens = 0
        self.book, self.engine = book, engine
        self.upstream = EndpointClient(engine.endpoint, book.limits, secrets)
        self._former: set[EndpointClient] = set()
        """Clients with requests that began before the last change."""
        self._closing: set[asyncio.Task[None]] = set()

    def take(self, book: AdapterConfig, engine: AdaptedEngine) -> None:
        if (engine, book.limits) != (self.engine, self.book.limits):
            # Running requests continue to use the client with which they began.
            asyncio.get_running_loop().call_later(self.book.limits.answer_timeout_s, self._close, self.upstream)
            self._former.add(self.upstream)
            self.upstream = EndpointClient(engine.endpoint, book.limits, self.secrets)
        self.book, self.engine = book, engine

    def _close(self, former: EndpointClient) -> None:
        """Closes a former client, after the time of its longest possible answer."""
        if former in self._former:
            self._former.discard(former)
            closing = asyncio.get_running_loop().create_task(former.close())
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        """Closes its connections, after all requests have finished."""
        clients, self._former = [self.upstream, *self._former], set()
        await asyncio.gather(*(client.close() for client in clients), *self._closing, return_exceptions=True)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        begun = False
        original_send = send

        async def send_on(message: Message) -> None:
            nonlocal begun
            begun = True
            await original_send(message)

        send = send_on
        try:
            await self._dispatch(scope["method"], scope["path"], scope, receive, send)
        except ApiError as refusal:
            if refusal.status >= 500:
                self._warn("request_failed", scope, refusal)
            await _respond(send, refusal.status, refusal.body)
        except ClientDisconnected:
            log.info("request_aborted", **self._of(scope))
        except Exception:
            # A bug. The client still gets an error in OpenAI's format, unless its answer has begun.
            log.exception("request_failed", **self._of(scope))
            if begun:
                raise
            await _respond(
                send, 500, ApiError(500, "internal_error", "The adapter failed. Its log has the reason.").body
            )

    def _of(self, scope: Scope) -> dict[str, str]:
        """The first fields of a log line about this request."""
        return {"request": request_id(scope), "engine": self.engine.name, "pool": self.engine.pool}

    def _warn(self, event: str, scope: Scope, refusal: ApiError) -> None:
        # A message from the endpoint may repeat the prompt, so it is sent to the client but not logged.
        reason = {} if refusal.code in QUOTES else {"reason": refusal.message}
        log.warning(event, **self._of(scope), code=refusal.code, **reason)

    async def _dispatch(self, method: str, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        match (method, path):
            case ("POST", "/v1/chat/completions"):
                await self._chat(scope, receive, send)
            case ("GET", "/health"):
                await self._health(send)
            case ("GET", "/v1/models"):
                await _respond(send, 200, orjson.dumps(self._models()))
            case ("GET", "/load"):
                await _respond(send, 200, orjson.dumps({"server_load": self.running}))
            case ("GET", "/metrics"):
                await _respond(send, 200, self._metrics().encode(), b"text/plain; version=0.0.4")
            case _:
                raise ApiError(404, "not_found", "This model supports only /v1/chat/completions.")

    async def _health(self, send: Send) -> None:
        """Checks whether the endpoint accepts connections. It sends no request, because that would cost money."""
        url = urlsplit(self.engine.endpoint.url)
        try:
            async with asyncio.timeout(min(HEALTH_TIMEOUT_S, self.book.limits.connect_timeout_s)):
                _, writer = await asyncio.open_connection(
                    url.hostname, url.port or (443 if url.scheme == "https" else 80)
                )
            writer.close()
        except (OSError, ValueError, OverflowError) as error:
            raise ApiError(
                503, "endpoint_unreachable", f"Cannot connect to the endpoint: {type(error).__name__}."
            ) from error
        await _respond(send, 200, b"{}")

    async def _chat(self, scope: Scope, receive: Receive, send: Send) -> None:
        log.info("request_received", **self._of(scope))
        request = request_mapping.parse_chat_request(_parsed(await _body(receive, self.book.max_body_mb << 20)))
        self.running += 1
        try:
            await _unless_client_leaves(receive, self._answer(request, scope, send))
        finally:
            self.running -= 1

    async def _answer(self, request: ChatRequest, scope: Scope, send: Send) -> None:
        streams = request.stream and self.engine.endpoint.stream is not None
        body = request_mapping.fill_template(self.engine.endpoint, request, self.engine.model, streams)
        reply = ChatCompletion(request.model or self.engine.pool)
        deadline = asyncio.get_running_loop().time() + self.book.limits.answer_timeout_s
        if not request.stream:
            piece = await _before(deadline, self.upstream.whole(body))
            self._count(piece.usage)
            whole = reply.whole(piece.text, piece.finish_reason or "stop", piece.usage)
            await _respond(send, 200, orjson.dumps(whole))
            return
        async with contextlib.aclosing(self._streamed(request, reply, body, streams)) as parts:
            # Until the endpoint has sent data, an error is sent with its status, and the gateway can retry on another
            # engine.
            part: bytes | None = await _before(deadline, anext(parts))
            headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-store")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            try:
                while part is not None:
                    await _part(send, part)
                    part = await _before(deadline, anext(parts, None))
            except ApiError as refusal:
                self._warn("stream_failed", scope, refusal)
                # No [DONE] follows, so that clients notice that the answer is incomplete.
                await _part(send, sse_event(refusal.document))
            await _part(send, b"", more=False)

    async def _streamed(
        self, request: ChatRequest, reply: ChatCompletion, body: Any, streams: bool
    ) -> AsyncGenerator[bytes, None]:
        usage, reason, began = None, None, False
        source = self.upstream.pieces(body) if streams else _once(self.upstream.whole(body))
        async with contextlib.aclosing(source):
            async for piece in source:
                usage, reason = piece.usage or usage, piece.finish_reason or reason
                if piece.text:
                    yield (b"" if began else reply.first()) + reply.delta(piece.text)
                    began = True
        self._count(usage)
        yield (b"" if began else reply.first()) + reply.last(reason or "stop")
        if request.include_usage and usage:
            yield reply.usage(usage)
        yield DONE

    def _count(self, usage: dict[str, int] | None) -> None:
        self.answered += 1
        self.tokens += usage["completion_tokens"] if usage else 0

    def _models(self) -> dict[str, Any]:
        data = [{"id": name, "object": "model", "created": 0, "owned_by": "manyeyes"} for name in self.engine.names]
        return {"object": "list", "data": data}

    def _metrics(self) -> str:
        """The vLLM metrics that are known for an endpoint, under vLLM's names."""
        label = f'{{model_name="{self.engine.pool}"}}'
        return (
            f"# TYPE vllm:num_requests_running gauge\nvllm:num_requests_running{label} {self.running}\n"
            f"# TYPE vllm:num_requests_waiting gauge\nvllm:num_requests_waiting{label} 0\n"
            f"# TYPE vllm:generation_tokens_total counter\nvllm:generation_tokens_total{label} {self.tokens}\n"
            f"# TYPE vllm:request_success_total counter\nvllm:request_success_total{label} {self.answered}\n"
        )


async def _before(deadline: float, awaited: Awaitable[T]) -> T:
    try:
        async with asyncio.timeout_at(deadline):
            return await awaited
    except TimeoutError as error:
        raise ApiError(
            504, "endpoint_timeout", "The endpoint's answer took too long (adapter.answer_timeout_s)."
        ) from error


async def _once(awaited: Awaitable[Any]) -> AsyncGenerator[Any, None]:
    yield await awaited


async def _body(receive: Receive, max_bytes: int) -> bytes:
    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnected
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > max_bytes:
            raise ApiError(
                413, "request_too_large", f"The request is larger than {max_bytes >> 20} MiB (gateway.max_body_mb)."
            )
        if not message.get("more_body"):
            return b"".join(parts)


def _parsed(raw: bytes) -> Any:
    try:
        return orjson.loads(raw)
    except ValueError as error:
        raise ApiError(400, "invalid_json", "The request body is not valid JSON.") from error


async def _unless_client_leaves(receive: Callable[[], Awaitable[Message]], work: Any) -> None:
    """Cancels `work`, and with it the request to the endpoint, if the client disconnects. Raises ClientLeft."""
    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(_wait_for_disconnect(receive))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnected
        working.result()
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _wait_for_disconnect(receive: Callable[[], Awaitable[Message]]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _respond(send: Send, status: int, body: bytes, kind: bytes = b"application/json") -> None:
    headers = [(b"content-type", kind), (b"content-length", str(len(body)).encode())]
    if status in (429, 503):
        headers.append((b"retry-after", b"5"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await _part(send, body, more=False)


async def _part(send: Send, part: bytes, more: bool = True) -> None:
    await send({"type": "http.response.body", "body": part, "more_body": more})


def request_id(scope: Scope) -> str:
    """The request's id from the gateway; empty if there is none."""
    return next((value.decode("latin-1") for name, value in scope["headers"] if name == b"x-request-id"), "")
