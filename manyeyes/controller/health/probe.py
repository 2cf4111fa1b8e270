"""HTTP health probe for one engine.

Every operation has a timeout, response sizes are capped, and errors are returned, not raised.
"""

import asyncio
import base64
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

import orjson
import structlog

from manyeyes.config import fields
from manyeyes.config.engines import Engine
from manyeyes.config.gateway import Controller
from manyeyes.controller.health import vllm_metrics
from manyeyes.controller.health.http_connection import ConnectionClosed, ProbeConnection, ProbeReply, ProtocolError
from manyeyes.controller.health.states import CanaryResult, ProbeResult
from manyeyes.controller.health.vllm_metrics import EngineLoad, Loads

# A grey PNG of 32 x 32 pixels: it costs one vision token and exercises the whole path of an image.
WARM_UP_PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAACAAAAAgCAAAAABWESUoAAAAFklEQVR42mNoIAAYRhWMKhhVMFIVAABCAAAfN5c2AAAAAABJRU5ErkJggg=="
)
MAX_HEALTH_BYTES = 64 << 10
MAX_METRICS_BYTES = 4 << 20
"""vLLM's metrics take about 100 KB for each data-parallel rank."""
MAX_ANSWER_BYTES = 1 << 20
LONGEST_NAME = 256
ADDRESS_FOR_S = 30.0
"""An engine's name is resolved again after this time, or immediately after its connection is lost."""


log = structlog.get_logger()


async def address_of(engine: Engine) -> str | None:
    """Resolves the engine's IPv4 address. None when the name does not exist, because its container does not run.

    Raises ResolverUnavailable.
    """
    try:
        return str((await fields.resolve_host(engine.host, engine.port, socket.AF_INET))[0])
    except fields.ResolverUnavailable:
        raise
    except fields.LookupFailed:
        return None


@dataclass(slots=True)
class ProbeReport:
    result: ProbeResult
    why: str
    waited_s: float
    """How long /health took, or how long its response is awaited so far."""
    load: EngineLoad | None
    """None when it was not read in this probe."""
    progressed: bool | None
    asleep: bool | None


class Probe:
    """The connections and pending requests of one engine.

    A pending probe of a busy engine is awaited, not sent again.
    """

    def __init__(self, engine: Engine, on_closed: Callable[[], None], address: str | None = None) -> None:
        self.engine = engine
        self.address = address
        """The address of the last connection attempt."""
        self.loads = Loads()
        self._on_closed = on_closed
        self._address_at_s = float("-inf")
        self._health: ProbeConnection | None = None
        self._health_reply: asyncio.Future[ProbeReply] | None = None
        self._health_sent_at_s = 0.0
        self._counters: asyncio.Task[EngineLoad | None] | None = None
        self._connections: dict[str, ProbeConnection] = {}
        """Connections for the counters, by path."""
        self._counters_odd = ""
        self._last_load: EngineLoad | None = None
        """The load that the last successful probe read."""
        self._asleep: bool | None = None

    async def run(self, rules: Controller, wait_s: float, with_counters: bool) -> ProbeReport:
        """Runs one probe in about `wait_s` seconds. `with_counters` also reads /load and /metrics."""
        if self._health_reply is None:
            failure = await self._send_health(rules)
            if failure is not None:
                self._drop_counters()
                return failure
        if with_counters and self._counters is None and self.address:
            self._counters = asyncio.create_task(self._read_counters(rules))
        assert self._health_reply is not None
        waiting: set[asyncio.Future[ProbeReply] | asyncio.Task[EngineLoad | None]] = {self._health_reply}
        if self._counters is not None:
            waiting.add(self._counters)
        await asyncio.wait(waiting, timeout=wait_s)
        before, load = self._last_load, self._take_counters()
        self._last_load = load or before
        result, why = self._health_result(rules)
        waited_s = time.monotonic() - self._health_sent_at_s
        progressed = None if load is None or before is None else load.progressed_since(before)
        asleep = self._asleep if load is not None else None
        if result in (ProbeResult.HEALTHY, ProbeResult.ODD) and self._counters_odd and not why:
            result, why = ProbeResult.ODD, self._counters_odd
        if result in (ProbeResult.GONE, ProbeResult.DEAD):
            self._drop_counters()
        return ProbeReport(result, why, waited_s, load, progressed, asleep)

    async def send_canary(self, name: str, with_image: bool, timeout_s: float) -> tuple[CanaryResult, str]:
        """Sends a canary request: one token about one image. Returns the result and a description of the failure."""
        if self.address is None:
            return CanaryResult.FAILED, "its name does not resolve"
        try:
            body = _canary_body(name, with_image)
            return _canary(await self._request("/v1/chat/completions", timeout_s, MAX_ANSWER_BYTES, body))
        except TimeoutError:
            return CanaryResult.SILENT, f"no response within {timeout_s:g} s"
        except ProtocolError as error:
            return CanaryResult.FAILED, f"it {error}"
        except ConnectionClosed:
            return CanaryResult.FAILED, "the connection was closed"
        except OSError as error:
            return CanaryResult.FAILED, str(error)

    async def names(self, timeout_s: float) -> frozenset[str]:
        """Every value of `model` that the engine lists in /v1/models; empty when it lists none."""
        try:
            return _names(await self._request("/v1/models", timeout_s, MAX_HEALTH_BYTES))
        except (TimeoutError, OSError, ProtocolError, ConnectionClosed):
            return frozenset()

    async def _request(self, path: str, timeout_s: float, max_bytes: int, body: bytes | None = None) -> ProbeReply:
        """Sends one request on a new connection. Raises OSError, TimeoutError, ProtocolError, ConnectionClosed."""
        async with asyncio.timeout(timeout_s):
            connection = await ProbeConnection.open(self.address or "", self.engine.port, timeout_s, lambda: None)
            try:
                return await connection.send(path, max_bytes, body)
            finally:
                connection.close()

    def close(self) -> None:
        """Closes all connections and cancels pending requests."""
        self._drop_health()
        self._drop_counters()

    async def _send_health(self, rules: Controller) -> ProbeReport | None:
        """Sends the request for /health. Returns a report when it could not be sent."""
        self._health_sent_at_s = time.monotonic()
        if (
            self._health_sent_at_s > self._address_at_s + ADDRESS_FOR_S
            or self._health is None
            or not self._health.is_open
        ):
            try:
                address = await address_of(self.engine)
            except fields.ResolverUnavailable:
                address = self.address  # the last known address is the best guess
                if address is None:
                    return self._report(ProbeResult.SILENT)
            if address is None:
                return self._report(ProbeResult.GONE)
            if address != self.address and self._health is not None:
                self._health.close()
            self.address, self._address_at_s = address, self._health_sent_at_s
        if self._health is None or not self._health.is_open:
            try:
                self._health = await ProbeConnection.open(
                    self.address or "", self.engine.port, rules.connect_timeout_s, self._on_closed
                )
            except TimeoutError:
                return self._report(ProbeResult.SILENT)
            except OSError:
                return self._report(ProbeResult.GONE)
        if not self._health.is_open:  # closed as soon as it was made
            return self._report(ProbeResult.ODD, "it closes connections immediately")
        self._health_reply = self._health.send("/health", MAX_HEALTH_BYTES)
        return None

    def _report(self, result: ProbeResult, why: str = "") -> ProbeReport:
        return ProbeReport(result, why, time.monotonic() - self._health_sent_at_s, None, None, None)

    def _health_result(self, rules: Controller) -> tuple[ProbeResult, str]:
        pending, connection = self._health_reply, self._health
        assert pending is not None
        assert connection is not None
        if not pending.done():
            if connection.status is not None:
                self._drop_health()
                return ProbeResult.ODD, "its response to /health does not end"
            if time.monotonic() - self._health_sent_at_s >= rules.probe_timeout_s:
                self._drop_health()
            return ProbeResult.SILENT, ""
        self._health_reply = None
        try:
            status = pending.result().status
        except ProtocolError as error:
            return ProbeResult.ODD, f"it {error}"
        except (ConnectionClosed, asyncio.CancelledError):
            return ProbeResult.SILENT, ""
        if status == 200:
            return ProbeResult.HEALTHY, ""
        if status >= 500:
            return ProbeResult.DEAD, ""
        return ProbeResult.ODD, f"it responds to /health with status {status}"

    async def _read_counters(self, rules: Controller) -> EngineLoad | None:
        """Reads /load and /metrics in parallel, because a saturated engine is slow in both. None when it has no
        metrics.

        Raises ProtocolError.
        """
        try:
            async with asyncio.timeout(rules.probe_timeout_s):
                metrics = (await self._connection("/metrics", rules)).send("/metrics", MAX_METRICS_BYTES)
                server_load = (await self._connection("/load", rules)).send("/load", MAX_HEALTH_BYTES)
                reply, server_load_reply = await asyncio.gather(metrics, server_load)
        except (TimeoutError, OSError, ConnectionClosed):
            is_endless = any(
                connection.is_open and connection.status is not None for connection in self._connections.values()
            )
            self._close_counters()
            if is_endless:
                raise ProtocolError("sends metrics that do not end") from None
            return None
        except ProtocolError:
            self._close_counters()
            raise
        counters = vllm_metrics.read(reply.body, self.loads.places) if reply.status == 200 else None
        if counters is None:
            return None
        self._asleep = counters.asleep
        return self.loads.take(time.monotonic(), counters, _server_load(server_load_reply))

    async def _connection(self, path: str, rules: Controller) -> ProbeConnection:
        """The open connection for this path. Raises OSError, TimeoutError, ConnectionClosed."""
        connection = self._connections.get(path)
        if connection is None or not connection.is_open:
            address = self.address or ""
            connection = await ProbeConnection.open(address, self.engine.port, rules.connect_timeout_s, lambda: None)
            self._connections[path] = connection
        if not connection.is_open:
            raise ConnectionClosed
        return connection

    def _take_counters(self) -> EngineLoad | None:
        if self._counters is None or not self._counters.done():
            return None
        done, self._counters = self._counters, None
        self._counters_odd = ""
        try:
            return done.result()
        except ProtocolError as error:
            self._counters_odd = f"it {error} at /metrics"
        except asyncio.CancelledError:
            pass
        except Exception:
            # This is a bug. The result of /health still counts.
            log.exception("counters_unreadable", engine=self.engine.name)
        return None

    def _drop_health(self) -> None:
        self._health_reply = None
        if self._health is not None:
            self._health.close()
            self._health = None

    def _drop_counters(self) -> None:
        if self._counters is not None:
            self._counters.cancel()
            self._counters = None
        self._close_counters()

    def _close_counters(self) -> None:
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()


def _canary_body(name: str, with_image: bool) -> bytes:
    content: list[dict[str, object]] = [{"type": "text", "text": "Reply with one word."}]
    if with_image:
        url = "data:image/png;base64," + base64.b64encode(WARM_UP_PNG).decode()
        content.insert(0, {"type": "image_url", "image_url": {"url": url}})
    return orjson.dumps({"model": name, "max_tokens": 1, "messages": [{"role": "user", "content": content}]})


def _canary(reply: ProbeReply) -> tuple[CanaryResult, str]:
    text = reply.body[:200].decode("utf-8", "replace")
    if reply.status in (429, 503):
        return CanaryResult.BUSY, f"status {reply.status}: {text}"
    if reply.status != 200:
        return CanaryResult.FAILED, f"status {reply.status}: {text}"
    try:
        reason = orjson.loads(reply.body)["choices"][0]["finish_reason"]
    except (ValueError, LookupError, TypeError):
        return CanaryResult.FAILED, f"the response is not a completion: {text}"
    return (
        (CanaryResult.PASSED, "") if reason in ("length", "stop") else (CanaryResult.FAILED, f"finish_reason {reason}")
    )


def _names(reply: ProbeReply) -> frozenset[str]:
    """Parses vLLM's {"data": [{"id": "big"}, ...]}."""
    if reply.status != 200:
        return frozenset()
    try:
        listed = [entry["id"] for entry in orjson.loads(reply.body)["data"]]
    except (ValueError, LookupError, TypeError):
        return frozenset()
    return frozenset(name for name in listed if isinstance(name, str) and 0 < len(name) <= LONGEST_NAME)


def _server_load(reply: ProbeReply) -> int | None:
    """Parses vLLM's {"server_load": 3}; None when it is invalid."""
    if reply.status != 200:
        return None
    try:
        value = orjson.loads(reply.body)["server_load"]
    except (ValueError, LookupError, TypeError):
        return None
    is_count = isinstance(value, int) and not isinstance(value, bool) and abs(value) <= vllm_metrics.MAX_REQUESTS
    return value if is_count else None
