"""Sends the gateway's spans to whoever takes them. What cannot be sent in time is dropped and counted; no request waits for it."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

import httpx
import orjson
import structlog

from manyeyes.config.observability import Tracing
from manyeyes.controller.bounded import NoReply, call
from manyeyes.controller.telemetry import access_log_parser, metrics
from manyeyes.controller.telemetry.request_spans import TRACED, document, spans

log = structlog.get_logger()
EVERY_S = 1.0
MOST_AT_ONCE = 500
MOST_WAITING = 5_000
TIMEOUT_S = 5.0


class SpanExport:
    """`tracing` is asked each time: it may change while the controller runs."""

    def __init__(self, tracing: Callable[[], Tracing], engine_at: Callable[[str], str]) -> None:
        self.tracing = tracing
        self.engine_at = engine_at
        self._waiting: deque[dict[str, Any]] = deque()
        self._works = True

    def take(self, datagram: bytes) -> None:
        """One line of the gateway's log."""
        if TRACED not in datagram or not self.tracing().enabled:
            return
        request = access_log_parser.read(datagram)
        try:
            made = spans(orjson.loads(datagram[datagram.index(b"{") :]), request, self.engine_at) if request else []
        except (LookupError, ValueError, TypeError, AttributeError, OverflowError):
            metrics.UNREADABLE.inc()
            return
        room = MOST_WAITING - len(self._waiting)
        self._waiting.extend(made[:room])
        metrics.SPANS.labels("dropped").inc(max(0, len(made) - room))

    async def run(self) -> None:
        """Until it is cancelled."""
        async with httpx.AsyncClient(timeout=TIMEOUT_S, trust_env=False) as client:
            while True:
                await asyncio.sleep(EVERY_S)
                while self._waiting:
                    await self._send(
                        client, [self._waiting.popleft() for _ in range(min(MOST_AT_ONCE, len(self._waiting)))]
                    )

    async def _send(self, client: httpx.AsyncClient, found: list[dict[str, Any]]) -> None:
        collector = self.tracing().collector
        try:
            reply = await call(client, "POST", f"{collector}/v1/traces", TIMEOUT_S, document(found))
            if not 200 <= reply.status < 300:
                raise NoReply(f"it answers {reply.status}")
        except NoReply as error:
            metrics.SPANS.labels("dropped").inc(len(found))
            if self._works:
                log.warning("spans_not_taken", collector=collector, error=str(error))
            self._works = False
            return
        if not self._works:
            log.info("spans_taken_again", collector=collector)
        self._works = True
        metrics.SPANS.labels("sent").inc(len(found))
