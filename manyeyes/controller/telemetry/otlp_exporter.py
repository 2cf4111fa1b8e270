"""Builds the gateway's spans from its log lines (stock nginx writes none) and sends them to an OTLP collector.

Spans that cannot be sent in time are dropped and counted; no request waits for them. The format is OpenTelemetry's
JSON: https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding. It writes ids in hexadecimal and 64-bit numbers
as strings. The engine's own span has the same parent as the spans of the attempts.
"""

import asyncio
import hashlib
from collections import deque
from collections.abc import Callable
from datetime import datetime
from typing import Any

import httpx
import orjson
import structlog

from manyeyes.config.observability import Tracing
from manyeyes.controller import metrics
from manyeyes.controller.bounded import RequestFailed, bounded_request
from manyeyes.controller.health.states import AttemptOutcome
from manyeyes.controller.telemetry import access_log_parser
from manyeyes.controller.telemetry.access_log_parser import EngineAttempt, LoggedRequest

SERVER, CLIENT = 2, 3
ERROR = 2
TRACED = b'"traced":"1"'
"""Marks log lines of requests that get spans."""


def build_spans(line: dict[str, Any], request: LoggedRequest, engine_at: Callable[[str], str]) -> list[dict[str, Any]]:
    """Builds the request's span, then one span for each attempt.

    Raises KeyError or ValueError for a line that nginx did not write.
    """
    ended_s = datetime.fromisoformat(line["at"]).timestamp()
    began_s = ended_s - (request.total_s or 0.0)
    trace, own, parent = str(line["trace"]), str(line["span"]), str(line["parent"])
    if len(bytes.fromhex(trace)) != 16 or len(bytes.fromhex(own)) != 8:
        raise ValueError(f"invalid trace ids: {trace!r}, {own!r}")
    attributes = {
        "http.request.method": line["method"],
        "url.path": line["path"],
        "http.response.status_code": request.status,
        "manyeyes.request": line["request"],
        "manyeyes.model": line["model"],
        "manyeyes.pool": request.pool,
        "manyeyes.engine": request.engine,
        "manyeyes.fallback": request.fallback,
        "manyeyes.cache": request.cache,
    }
    whole = _span(
        trace, own, f"{line['method']} {line['path']}", SERVER, (began_s, ended_s), attributes, request.status >= 500
    )
    if parent:
        whole["parentSpanId"] = parent
    spans = [whole]
    at_s = began_s
    for number, attempt in enumerate(request.attempts):
        # The log has no id for an attempt, so it is derived from the request's span id.
        child = hashlib.sha256(f"{own} {number}".encode()).hexdigest()[:16]
        until_s = min(at_s + (attempt.response_s or 0.0), ended_s)
        attributes = {
            "manyeyes.engine": engine_at(attempt.address),
            "server.address": attempt.address,
            "manyeyes.outcome": attempt.outcome.value,
            "manyeyes.first_byte_s": attempt.header_s,
        }
        made = _span(trace, child, "engine attempt", CLIENT, (at_s, until_s), attributes, _failed(attempt))
        spans.append(made | {"parentSpanId": own})
        at_s = until_s
    return spans


def otlp_document(spans: list[dict[str, Any]]) -> dict[str, Any]:
    resource = {"attributes": _attributes({"service.name": "gateway"})}
    return {"resourceSpans": [{"resource": resource, "scopeSpans": [{"scope": {"name": "manyeyes"}, "spans": spans}]}]}


def _span(
    trace: str, own: str, name: str, kind: int, time_s: tuple[float, float], attributes: dict[str, Any], failed: bool
) -> dict[str, Any]:
    begin, end = (str(round(seconds * 1e9)) for seconds in time_s)
    made = {
        "traceId": trace,
        "spanId": own,
        "name": name,
        "kind": kind,
        "startTimeUnixNano": begin,
        "endTimeUnixNano": end,
    }
    return made | {"attributes": _attributes(attributes)} | ({"status": {"code": ERROR}} if failed else {})


def _attributes(attributes: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"key": key, "value": _value(value)} for key, value in attributes.items() if value not in ("", None)]


def _value(value: Any) -> dict[str, Any]:
    if isinstance(value, int):
        return {"intValue": str(value)}
    return {"doubleValue": value} if isinstance(value, float) else {"stringValue": str(value)}


def _failed(attempt: EngineAttempt) -> bool:
    return attempt.outcome not in (AttemptOutcome.OK, AttemptOutcome.LEFT)


log = structlog.get_logger()
EXPORT_INTERVAL_S = 1.0
MAX_SPANS = 500
QUEUE_SIZE = 5_000
TIMEOUT_S = 5.0


class SpanExporter:
    """Queues spans and sends them. `tracing` is called each time, because it may change while the controller runs."""

    def __init__(self, tracing: Callable[[], Tracing], engine_at: Callable[[str], str]) -> None:
        self.tracing = tracing
        self.engine_at = engine_at
        self._waiting: deque[dict[str, Any]] = deque()
        self._works = True

    def add(self, datagram: bytes) -> None:
        if TRACED not in datagram or not self.tracing().enabled:
            return
        request = access_log_parser.parse_datagram(datagram)
        try:
            made = (
                build_spans(orjson.loads(datagram[datagram.index(b"{") :]), request, self.engine_at) if request else []
            )
        except (LookupError, ValueError, TypeError, AttributeError, OverflowError):
            metrics.UNREADABLE.inc()
            return
        room = QUEUE_SIZE - len(self._waiting)
        self._waiting.extend(made[:room])
        metrics.SPANS.labels("dropped").inc(max(0, len(made) - room))

    async def run(self) -> None:
        async with httpx.AsyncClient(timeout=TIMEOUT_S, trust_env=False) as client:
            while True:
                await asyncio.sleep(EXPORT_INTERVAL_S)
                while self._waiting:
                    await self._send(
                        client, [self._waiting.popleft() for _ in range(min(MAX_SPANS, len(self._waiting)))]
                    )

    async def _send(self, client: httpx.AsyncClient, spans: list[dict[str, Any]]) -> None:
        collector = self.tracing().collector
        try:
            reply = await bounded_request(client, "POST", f"{collector}/v1/traces", TIMEOUT_S, otlp_document(spans))
            if not 200 <= reply.status < 300:
                raise RequestFailed(f"status {reply.status}")
        except RequestFailed as error:
            metrics.SPANS.labels("dropped").inc(len(spans))
            if self._works:
                log.warning("spans_rejected", collector=collector, error=str(error))
            self._works = False
            return
        if not self._works:
            log.info("span_export_recovered", collector=collector)
        self._works = True
        metrics.SPANS.labels("sent").inc(len(spans))
