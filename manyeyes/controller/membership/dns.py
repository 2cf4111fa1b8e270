"""Membership as DNS: which engines of a pool get new requests. nginx asks every second (DESIGN: no reload, counts kept).

    _http._tcp.<pool>.pool.<domain>     SRV   port, weight and name of every engine that is in
    _http._tcp.c<N>.<pool>.pool.<domain> SRV  those of them that take N requests at a time
    <pool>.pool.<domain>                A     their addresses
    <engine>.engine.<domain>            A     one address

An unknown name is NXDOMAIN. A pool of which nothing is known yet is SERVFAIL: nginx then keeps the members it has.
A pool whose engines are all known to be out is an empty answer: nginx drops them and the fallback takes over.
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
# dnspython leaves these two untyped.
_A: Callable[..., A] = partial(A, dns.rdataclass.IN, dns.rdatatype.A)
_SRV: Callable[..., SRV] = partial(SRV, dns.rdataclass.IN, dns.rdatatype.SRV)
PRIORITY = 0
"""All the same: nginx takes those of a higher number as backups only, and who should get nothing is not in the answer."""
MAX_UDP_BYTES = 4096
MOST_KEPT = 4096
"""Answers; whoever asks for ever new names makes them begin anew."""
TCP_TIMEOUT_S = 5
MOST_KEPT_BYTES = 512
"""A larger query is no name with a few options."""
HEAD_BYTES = 12


class DnsResponder:
    """Answers queries, and keeps each answer until the fleet changes: nginx asks the same things every second.

    An answer about ten engines takes 1.2 ms to make (benchmarks/controller), and a look-up in a table to repeat.
    """

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self._version = -1
        self._kept: dict[tuple[bytes, bool], tuple[bytes, Counter]] = {}

    def to(self, wire: bytes, over_udp: bool) -> bytes | None:
        """The response to one query, or None for bytes that are no query."""
        if self._version != self.fleet.version or len(self._kept) >= MOST_KEPT:
            self._kept.clear()
            self._version = self.fleet.version
        # All but the query's number, which is the first two bytes of both.
        key = (wire[2:], over_udp)
        if kept := self._kept.get(key):
            rest, counted = kept
            counted.inc()
            return wire[:2] + rest
        try:
            made = build_response(wire, self.fleet, over_udp)
        except Exception:
            # nginx keeps its members when it is told that something went wrong, and asks again.
            record_failure("dns_answer")
            return _error(wire, dns.rcode.SERVFAIL)
        if made is None:
            return _error(wire, dns.rcode.FORMERR)
        reply, counted = made
        counted.inc()
        if len(wire) <= MOST_KEPT_BYTES:
            self._kept[key] = (reply[2:], counted)
        return reply


def _error(wire: bytes, code: dns.rcode.Rcode) -> bytes | None:
    """An error, made by hand of the query's own bytes; None for what is no query."""
    if len(wire) < HEAD_BYTES or wire[2] & 0x80:
        return None
    end = HEAD_BYTES
    while end < len(wire) and 0 < wire[end] < 64:
        end += wire[end] + 1
    # nginx takes an error as the answer to its question only with the question in it.
    is_whole = wire[4:6] == b"\0\1" and end + 5 <= len(wire) and wire[end] == 0
    question = wire[HEAD_BYTES : end + 5] if is_whole else b""
    head = wire[:2] + bytes([0x80 | (wire[2] & 0x79), code])  # its number; QR, its opcode and RD; the error
    return head + bytes([0, bool(question)]) + bytes(6) + question


def build_response(wire: bytes, fleet: Fleet, over_udp: bool) -> tuple[bytes, Counter] | None:
    """The response to one query and where it is counted, or None for bytes that are no query."""
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
    """Puts the answer in; returns the pool's or engine's name, `other` for a name that does not exist."""
    question = response.question[0]
    network, ttl = fleet.cluster.network, fleet.cluster.controller.dns_ttl_s
    domain = dns.name.from_text(network.domain)
    labels = [label.decode("ascii", "replace").lower() for label in question.name.relativize(domain).labels]
    kind = labels[-1] if question.name.is_subdomain(domain) and labels else ""
    members: list[FleetMember] | None = None
    as_srv = False
    label = ""
    if kind == "pool" and (asked := _pool_question(labels[:-1])) and (found := fleet.serving_upstream(asked.pool)):
        (label, members), as_srv = found, asked.as_srv
        if members is None:
            response.set_rcode(dns.rcode.SERVFAIL)
        elif asked.capacity is not None:
            members = [member for member in members if member.in_flight == asked.capacity]
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
    """Only engines that take so many requests at a time."""


def _pool_question(labels: list[str]) -> _PoolQuestion | None:
    """[_http, _tcp,] [c96,] pool; None for anything else."""
    as_srv = tuple(labels[:2]) == SRV_SERVICE
    match labels[2:] if as_srv else labels:
        case [pool]:
            return _PoolQuestion(pool, as_srv, None)
        case [capacity, pool] if re.fullmatch(r"c[0-9]{1,19}", capacity):
            return _PoolQuestion(pool, as_srv, int(capacity[1:]))
    return None


@lru_cache(maxsize=4096)
def _address_record(address: str) -> A | None:
    """None for what is no IPv4 address: one engine without an address must not take its pool's other engines along."""
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
    wanted = question.rdtype
    if not members or wanted not in (dns.rdatatype.SRV if as_srv else dns.rdatatype.A, dns.rdatatype.ANY):
        return
    records = [(member, record) for member in members if (record := _address_record(member.address or ""))]
    if not records:
        response.set_rcode(dns.rcode.SERVFAIL)  # engines serve, and nothing can be said of where
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
        self.lost = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str | int, ...]) -> None:
        try:
            if (reply := self.answers.to(data, over_udp=True)) and self.transport:
                self.transport.sendto(reply, addr)
        except Exception:
            record_failure("dns_udp")

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()


@contextlib.asynccontextmanager
async def serve_dns(fleet: Fleet, host: str, port: int) -> AsyncIterator[None]:
    """Answers on UDP and TCP while the context lasts."""
    loop = asyncio.get_running_loop()
    answers = DnsResponder(fleet)
    transport, udp = await loop.create_datagram_endpoint(lambda: _Udp(answers), local_addr=(host, port))
    server = await asyncio.start_server(lambda r, w: _tcp(answers, r, w), host, port)

    async def reopen() -> None:
        """A socket that the system closed is opened again."""
        nonlocal transport, udp
        while True:
            await udp.lost.wait()
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
        pass  # whoever asked is gone
    except Exception:
        record_failure("dns_tcp")
    finally:
        writer.close()
