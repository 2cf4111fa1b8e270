"""Receives the gateway's request log over UDP and records it for Prometheus, and per pool and engine for /status."""

import asyncio
import contextlib
import socket
import struct
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import structlog

from manyeyes.config.placement import PlacedCluster
from manyeyes.config.pools import Slo
from manyeyes.controller import metrics
from manyeyes.controller.health.states import AttemptOutcome
from manyeyes.controller.membership.fleet import Fleet
from manyeyes.controller.supervision import record_failure
from manyeyes.controller.telemetry import access_log_parser, request_metrics
from manyeyes.controller.telemetry.access_log_parser import LoggedRequest
from manyeyes.controller.telemetry.log_senders import LogSenders, watch_senders
from manyeyes.controller.telemetry.otlp_exporter import SpanExporter
from manyeyes.controller.telemetry.request_metrics import ClusterLabels, LatencyWindow, RequestGroup

log = structlog.get_logger()
RECEIVE_BUFFER_BYTES = 8 << 20
"""Requested size. Linux grants at most twice net.core.rmem_max, which is 416 KiB for the default of 212,992. A
datagram of 750 bytes uses 2304 bytes of it."""
PAUSE_S = 0.02
MAX_DATAGRAMS = 500
"""Datagrams per batch: about 20 ms of work, because the same loop answers DNS."""
MAX_BYTES = 65_535
KNOWN_FOR_S = 0.1
"""How long the engines' addresses are cached. An engine is known long before nginx sends it requests, except for the
first requests after a restart of the controller."""
MAX_GROUPS = 1000
"""Maximum number of request groups (by engine, key and so on). Requests of further groups are counted one by one."""
FAILED = frozenset({AttemptOutcome.REFUSED, AttemptOutcome.LOST, AttemptOutcome.ERROR, AttemptOutcome.TIMEOUT})
"""Outcomes after which an engine is probed."""
SO_MEMINFO, MEMINFO_NUMBERS, MEMINFO_DROPS = 55, 9, 8
"""Linux: the counters of a socket (socket(7)); the last is the number of dropped datagrams."""


class AccessLog:
    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.recent: dict[str, LatencyWindow] = {}
        """By pool, without answers from the cache, because they do not show how long an engine takes."""
        self.last_success: dict[str, datetime] = {}
        """By engine: when its last successful answer began.

        The end of an answer proves nothing: when an engine hangs and the client or nginx aborts the stream, its status
        is also 200.
        """
        self._keys = {""}
        self._known = _known(fleet)
        self._known_at_s = time.monotonic()
        self.spans = SpanExporter(
            lambda: self.fleet.cluster.tracing, lambda address: self._known.engine_at.get(address, "")
        )
        self.receiver: socket.socket | None = None
        self._dropped = 0
        self._slos: dict[str, Slo] = {}
        """By pool."""
        self._groups: dict[request_metrics.GroupKey, RequestGroup] = {}
        self._gathered: list[RequestGroup] = []
        """Groups that `flush` must count."""
        self.apply(fleet.cluster)

    def apply(self, cluster: PlacedCluster) -> None:
        self._forget_groups()
        self._slos = {pool.name: pool.slo for pool in cluster.pools}
        request_metrics.initialize_series(cluster)

    def record(self, datagram: bytes) -> None:
        """Counts one datagram with any content."""
        self.gather(datagram)
        self.flush()

    def gather(self, datagram: bytes) -> None:
        """Like `record`, but ordinary requests become visible only after `flush`."""
        now_s = time.monotonic()
        if now_s > self._known_at_s + KNOWN_FOR_S:
            self._learn(now_s)
        fields = access_log_parser.parse_fields(datagram)
        if fields is None:
            metrics.UNREADABLE.inc()
        elif not self._gather_ordinary(fields, now_s):
            self.flush()  # so that the fleet gets failures and successes in their order
            self._take(datagram, fields, now_s)

    def _gather_ordinary(self, fields: dict[str, object], now_s: float) -> bool:
        """Adds the request to a group. Returns False when it must be parsed individually."""
        key = request_metrics.group_key(fields)
        figures = request_metrics.parse_figures(fields)
        if key is None or figures is None:
            return False
        try:
            group = self._groups.get(key) or self._group(key, fields)
        except TypeError:  # a field is a list
            return False
        if group is None:
            return False
        if not group.number:
            self._gathered.append(group)
        group.add(now_s, figures)
        self._recent_of(group.pool).add(now_s, figures.total_s, figures.first_byte_s)
        return True

    def _group(self, key: request_metrics.GroupKey, fields: dict[str, object]) -> RequestGroup | None:
        request = access_log_parser.parse_request(fields)
        if request is None:
            return None
        client = request_metrics.key_label(request.key, self._keys)
        self._keys.add(client)
        group = request_metrics.open_group(
            request, self._known, client, self._slos.get(self._known.responsible_pool(request))
        )
        if group and len(self._groups) < MAX_GROUPS:
            self._groups[key] = group
            return group
        return None

    def flush(self) -> None:
        """Counts the gathered requests for Prometheus and the fleet."""
        if not self._gathered:
            return
        now_s, now = time.monotonic(), datetime.now(UTC)
        gathered, self._gathered = self._gathered, []
        for group in gathered:
            group.flush()
            self.fleet.request_succeeded(group.engine, group.began_at_s)
            self._succeeded(group.engine, now - timedelta(seconds=now_s - group.began_at_s))

    def _learn(self, now_s: float) -> None:
        known = _known(self.fleet)
        if known != self._known:
            self._forget_groups()
        self._known, self._known_at_s = known, now_s

    def _forget_groups(self) -> None:
        self.flush()
        self._groups.clear()

    def _take(self, datagram: bytes, fields: dict[str, object], now_s: float) -> None:
        self.spans.add(datagram)
        request = access_log_parser.parse_request(fields)
        if request is None:
            metrics.UNREADABLE.inc()
            return
        key = request_metrics.key_label(request.key, self._keys)
        self._keys.add(key)
        request_metrics.count_request(request, self._known, key, self._slos.get(self._known.responsible_pool(request)))
        engine = self._known.engine(request)
        self._report_to_fleet(request, now_s)
        if request.ok and engine in self._known.pool_of:
            self._succeeded(engine, datetime.now(UTC) - timedelta(seconds=request.since_first_byte_s))
            if request.total_s is not None:
                self._recent_of(self._known.pool_of[engine]).add(now_s, request.total_s, request.first_byte_s)

    def _succeeded(self, engine: str, began: datetime) -> None:
        self.last_success[engine] = max(began, self.last_success.get(engine, began))

    def _recent_of(self, pool: str) -> LatencyWindow:
        recent = self.recent.get(pool)
        if recent is None:
            recent = self.recent[pool] = LatencyWindow()
        return recent

    def _report_to_fleet(self, request: LoggedRequest, now_s: float) -> None:
        """Reports successful and failed engines to the fleet, which probes the failed ones now."""
        for number, attempt in enumerate(request.attempts, start=1):
            engine = self._known.engine_at.get(attempt.address, "")
            if attempt.outcome in FAILED:
                self.fleet.request_failed(engine)
            elif attempt.outcome is AttemptOutcome.UNPROCESSABLE:
                self.fleet.request_unprocessable(engine)
            elif attempt.outcome is AttemptOutcome.OK and number == len(request.attempts) and request.ok:
                self.fleet.request_succeeded(engine, now_s - request.since_first_byte_s)

    def count_dropped(self) -> None:
        """Reads from the kernel how many datagrams it dropped. Call it before the metrics are read."""
        if self.receiver:
            dropped = _dropped(self.receiver)
            metrics.DROPPED.inc(max(0, dropped - self._dropped))  # the kernel's counter has 32 bits
            self._dropped = dropped

    def p95_ms(self, pool: str) -> int | None:
        """95th percentile of the pool's recent successful requests, in milliseconds; None while there are too few."""
        recent = self.recent.get(pool)
        return recent.total_ms(0.95, time.monotonic()) if recent else None

    def p95_s_of_last(self, seconds: float, pool: str) -> float | None:
        """95th percentile of the pool's successful requests of the last `seconds`; None while there are too few."""
        recent = self.recent.get(pool)
        return recent.total_s_since(0.95, time.monotonic() - seconds) if recent else None

    def first_byte_p95_ms(self, pool: str) -> int | None:
        recent = self.recent.get(pool)
        return recent.first_byte_ms(0.95, time.monotonic()) if recent else None


def _known(fleet: Fleet) -> ClusterLabels:
    return ClusterLabels(
        pools=frozenset(fleet.pool_names),
        # A remote endpoint is identified by its host name, as the gateway logs it.
        pool_of={pool.remote.host: pool.name for pool in fleet.cluster.pools if pool.remote}
        | {name: member.engine.pool for name, member in fleet.members.items()},
        engine_at={f"{member.address}:{member.engine.port}": name for name, member in fleet.members.items()},
    )


class _Reader:
    """Reads all waiting datagrams, then pauses briefly, because a wake-up costs more than a request.

    At 1,000 requests a second the controller uses 6.9 % of a core, compared with 9.3 % for asyncio's datagram protocol,
    which wakes up for each datagram.
    """

    def __init__(self, request_log: AccessLog, receiver: socket.socket, senders: str) -> None:
        self.request_log = request_log
        self.receiver = receiver
        self.senders = LogSenders(senders, self._take)
        self.loop = asyncio.get_running_loop()
        self.pause: asyncio.TimerHandle | None = None
        self._wait()

    def close(self) -> None:
        self.loop.remove_reader(self.receiver)
        if self.pause:
            self.pause.cancel()

    def _wait(self) -> None:
        self.loop.add_reader(self.receiver, self._empty)

    def _empty(self) -> None:
        self.loop.remove_reader(self.receiver)
        self.pause = self.loop.call_later(PAUSE_S, self._wait)
        try:
            with contextlib.suppress(BlockingIOError):
                for _ in range(MAX_DATAGRAMS):
                    datagram, (address, _) = self.receiver.recvfrom(MAX_BYTES)
                    self.senders.receive(datagram, address)
            self.request_log.flush()
        except Exception:
            record_failure("request_log")

    def _take(self, datagram: bytes) -> None:
        try:
            self.request_log.gather(datagram)
        except Exception:
            # This is a bug. The next request still counts.
            metrics.UNREADABLE.inc()
            log.exception("request_log_failed", bytes=len(datagram))


@contextlib.asynccontextmanager
async def receive_access_log(request_log: AccessLog, host: str, port: int, senders: str = "") -> AsyncIterator[None]:
    """Receives datagrams on UDP while the context lasts. `senders`: host name of the gateway; empty: any address."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
        receiver.setblocking(False)
        receiver.bind((host, port))
        reader = _Reader(request_log, receiver, senders)
        request_log.receiver = receiver
        try:
            async with watch_senders(reader.senders):
                yield
        finally:
            request_log.receiver = None
            reader.close()


def _dropped(receiver: socket.socket) -> int:
    """Datagrams that the kernel dropped since the socket was opened, because the receive buffer was full."""
    numbers = receiver.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, 4 * MEMINFO_NUMBERS)
    return int(struct.unpack(f"={MEMINFO_NUMBERS}I", numbers)[MEMINFO_DROPS])
