"""Serves pool membership over DNS: the engines of a pool that get new requests.

nginx queries these names every second, so membership changes need no reload and keep nginx's counters.

    _http._tcp.<pool>.pool.<domain>      SRV  port, weight and name of every engine in rotation
    _http._tcp.c<N>.<pool>.pool.<domain> SRV  only engines that process N requests at a time
    <pool>.pool.<domain>                 A    their addresses
    <engine>.engine.<domain>             A    one address

The response for an unknown name is NXDOMAIN. A pool whose state is not known yet is SERVFAIL: nginx then keeps its
members. A pool whose engines are all out of rotation has an empty response: nginx then removes them and uses the
fallback.
"""

import asyncio
import contextlib
import re
import struct
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import cast

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset
import structlog
from dns.rdtypes.IN.A import A
from dns.rdtypes.IN.SRV import SRV
from prometheus_client import Counter

from manyeyes.controller import metrics
from manyeyes.controller.membership.fleet import Fleet
from manyeyes.controller.membership.membership_store import FleetMember
from manyeyes.controller.supervision import keep_running, record_failure

log = structlog.get_logger()
SRV_SERVICE = ("_http", "_tcp")
# dnspython has no types for these two.
_A: Callable[..., A] = partial(A, dns.rdataclass.IN, dns.rdatatype.A)
_SRV: Callable[..., SRV] = partial(SRV, dns.rdataclass.IN, dns.rdatatype.SRV)
PRIORITY = 0
"""The same for all engines: nginx uses higher numbers only as backups, and the response has only eligible engines."""
MAX_UDP_BYTES = 4096
MAX_CACHED = 4096
"""Maximum number of cached responses. At this limit the cache is cleared, so random names cannot fill the memory."""
TCP_TIMEOUT_S = 5
MAX_CACHED_BYTES = 512
"""Larger queries are not cached: a name with a few options is smaller."""
HEAD_BYTES = 12


class DnsResponder:
    """Answers queries and caches each response until the fleet changes, because nginx repeats its queries every second.

    Building a response for ten engines takes 1.2 ms (benchmarks/controller); a cached response takes one table lookup.
    """

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self._version = -1
        self._cache: dict[tuple[bytes, bool], tuple[bytes, Counter]] = {}

    def to(self, wire: bytes, over_udp: bool) -> bytes | None:
        """The response to one query, or None when the bytes are not a query."""
        if self._version != self.fleet.version or len(self._cache) >= MAX_CACHED:
            self._cache.clear()
            self._version = self.fleet.version
        # The key excludes the query id, which is the first two bytes of the query and of the response.
        key = (wire[2:], over_udp)
        if cached := self._cache.get(key):
            rest, counted = cached
            counted.inc()
            return wire[:2] + rest
        try:
            made = build_response(wire, self.fleet, over_udp)
        except Exception:
            # After SERVFAIL nginx keeps its members and queries again.
            record_failure("dns_answer")
            return _error(wire, dns.rcode.SERVFAIL)
        if made is None:
            return _error(wire, dns.rcode.FORMERR)
        reply, counted = made
        counted.inc()
        if len(wire) <= MAX_CACHED_BYTES:
            self._cache[key] = (reply[2:], counted)
        return reply


def _error(wire: bytes, code: dns.rcode.Rcode) -> bytes | None:
    """Builds an error response from the bytes of the query; None when they are not a query."""
    if len(wire) < HEAD_BYTES or wire[2] & 0x80:
        return None
    end = HEAD_BYTES
    while end < len(wire) and 0 < wire[end] < 64:
        end += wire[end] + 1
    # nginx accepts an error response only when it contains the question.
    is_whole = wire[4:6] == b"\0\1" and end + 5 <= len(wire) and wire[end] == 0
    question = wire[HEAD_BYTES : end + 5] if is_whole else b""
    head = wire[:2] + bytes([0x80 | (wire[2] & 0x79), code])  # query id; QR, opcode and RD; error code
    return head + bytes([0, bool(question)]) + bytes(6) + question


def build_response(wire: bytes, fleet: Fleet, over_udp: bool) -> tuple[bytes, Counter] | None:
    """Builds the response to one query and returns it with its counter; None when the bytes are not a query."""
    try:
        query = dns.message.from_wire(wire, ignore_trailing=True)
    except (dns.exception.DNSException, struct.error, ValueError):
        return None
    if query.flags & dns.flags.QR:
        return None
    response = dns.message.make_response(query, recursion_available=False, our_payload=MAX_UDP_BYTES)
    response.flags |= dns.flags.AA
    label = "other"
    if query.opcode() is not dns.opcode.QUERY or len(query.question) != 1:
        response.set_rcode(dns.rcode.NOTIMP)
    else:
        label = _fill(response, fleet)
    counted = metrics.DNS_ANSWERS.labels(label, dns.rcode.to_text(response.rcode()))
    limit = max(512, query.payload) if over_udp else 65_535
    try:
        return response.to_wire(max_size=min(limit, MAX_UDP_BYTES) if over_udp else limit), counted
    except dns.exception.TooBig:
        truncated = dns.message.make_response(query)
        truncated.flags |= dns.flags.TC | dns.flags.AA
        return truncated.to_wire(), counted


def _fill(response: dns.message.Message, fleet: Fleet) -> str:
    """Fills in the answer. Returns the name of the pool or engine, or `other` for an unknown name."""
    question = response.question[0]
    network, ttl = fleet.cluster.network, fleet.cluster.controller.dns_ttl_s
    domain = dns.name.from_text(network.domain)
    labels = [label.decode("ascii", "replace").lower() for label in question.name.relativize(domain).labels]
    kind = labels[-1] if question.name.is_subdomain(domain) and labels else ""
    members: list[FleetMember] | None = None
    as_srv = False
    label = ""
    if (
        kind == "pool"
        and (pool_question := _pool_question(labels[:-1]))
        and (upstream := fleet.serving_upstream(pool_question.pool))
    ):
        (label, members), as_srv = upstream, pool_question.as_srv
        if members is None:
            response.set_rcode(dns.rcode.SERVFAIL)
        elif pool_question.capacity is not None:
            members = [member for member in members if member.in_flight == pool_question.capacity]
    elif kind == "engine" and len(labels) == 2 and labels[0] in fleet.members:
        label = labels[0]
        member = fleet.members[label]
        members = [member] if member.address else []
    else:
        response.set_rcode(dns.rcode.NXDOMAIN)
    _add(response, question, members or [], as_srv, ttl, domain)
    return label or "other"


@dataclass(frozen=True)
class _PoolQuestion:
    pool: str
    as_srv: bool
    capacity: int | None
    """Only engines that process this many requests at a time."""


def _pool_question(labels: list[str]) -> _PoolQuestion | None:
    """Parses [_http, _tcp,] [c96,] pool; None for anything else."""
    as_srv = tuple(labels[:2]) == SRV_SERVICE
    match labels[2:] if as_srv else labels:
        case [pool]:
            return _PoolQuestion(pool, as_srv, None)
        case [capacity, pool] if re.fullmatch(r"c[0-9]{1,19}", capacity):
            return _PoolQuestion(pool, as_srv, int(capacity[1:]))
    return None


@lru_cache(maxsize=4096)
def _address_record(address: str) -> A | None:
    """The A record; None when the address is not IPv4, so that an invalid address affects only its own engine."""
    try:
        return _A(address)
    except (dns.exception.DNSException, ValueError) as error:
        log.error("dns_record_omitted", address=address[:100], reason=str(error))
        return None


def _add(
    response: dns.message.Message,
    question: dns.rrset.RRset,
    members: list[FleetMember],
    as_srv: bool,
    ttl: int,
    domain: dns.name.Name,
) -> None:
    record_type = question.rdtype
    if not members or record_type not in (dns.rdatatype.SRV if as_srv else dns.rdatatype.A, dns.rdatatype.ANY):
        return
    records = [(member, record) for member in members if (record := _address_record(member.address or ""))]
    if not records:
        response.set_rcode(dns.rcode.SERVFAIL)  # engines serve, but their addresses are not known
        return
    members, addresses = [member for member, _ in records], [record for _, record in records]
    if not as_srv:
        response.answer.append(dns.rrset.from_rdata_list(question.name, ttl, addresses))
        return
    hosts = [dns.name.Name((member.engine.name.encode(), b"engine")) + domain for member in members]
    response.answer.append(
        dns.rrset.from_rdata_list(
            question.name,
            ttl,
            [
                _SRV(PRIORITY, member.engine.weight, member.engine.port, host)
                for member, host in zip(members, hosts, strict=True)
            ],
        )
    )
    for host, address in zip(hosts, addresses, strict=True):
        response.additional.append(dns.rrset.from_rdata(host, ttl, address))


class _Udp(asyncio.DatagramProtocol):
    def __init__(self, answers: DnsResponder) -> None:
        self.answers = answers
        self.transport: asyncio.DatagramTransport | None = None
        self.closed = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str | int, ...]) -> None:
        try:
            if (reply := self.answers.to(data, over_udp=True)) and self.transport:
                self.transport.sendto(reply, addr)
        except Exception:
            record_failure("dns_udp")

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set()


@contextlib.asynccontextmanager
async def serve_dns(fleet: Fleet, host: str, port: int) -> AsyncIterator[None]:
    """Serves DNS on UDP and TCP while the context lasts."""
    loop = asyncio.get_running_loop()
    answers = DnsResponder(fleet)
    transport, udp = await loop.create_datagram_endpoint(lambda: _Udp(answers), local_addr=(host, port))
    server = await asyncio.start_server(lambda r, w: _tcp(answers, r, w), host, port)

    async def reopen() -> None:
        """Opens the UDP socket again whenever the system closes it."""
        nonlocal transport, udp
        while True:
            await udp.closed.wait()
            log.error("dns_socket_failed", host=host, port=port)
            transport, udp = await loop.create_datagram_endpoint(lambda: _Udp(answers), local_addr=(host, port))

    reopening = asyncio.create_task(keep_running("dns_udp", reopen))
    try:
        yield
    finally:
        reopening.cancel()
        transport.close()
        server.close()


async def _tcp(answers: DnsResponder, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            async with asyncio.timeout(TCP_TIMEOUT_S):
                (length,) = struct.unpack("!H", await reader.readexactly(2))
                reply = answers.to(await reader.readexactly(length), over_udp=False)
                if reply is None:
                    break
                writer.write(struct.pack("!H", len(reply)) + reply)
                await writer.drain()
    except (TimeoutError, asyncio.IncompleteReadError, OSError):
        pass  # the client disconnected
    except Exception:
        record_failure("dns_tcp")
    finally:
        writer.close()
