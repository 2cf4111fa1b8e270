"""A DNS server that answers about headless Services as CoreDNS' kubernetes plugin does.

Written after its source (plugin/kubernetes, plugin/backend_lookup.go; miekg/dns Truncate): an SRV record per ready endpoint, whose
target is the pod's hostname or its address with dashes, in front of the Service's name; weights are 100 parted among them; their
addresses are added; a Service without a ready endpoint is NXDOMAIN; what does not fit into 512 bytes, or what EDNS says, is cut off
and marked as truncated, so that it is asked again over TCP.
"""

import contextlib
import socketserver
import struct
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset

ZONE = "cluster.local"
PLAIN_UDP_BYTES = 512


class HeadlessDns:
    """Pods by Service, in one namespace. `services` may be replaced at any time, from any thread."""

    def __init__(self, domain: str, port: int, ttl: int = 5, engine_port: int = 8000) -> None:
        self.domain = domain
        self.port = port
        self.ttl = ttl
        self.engine_port = engine_port
        self.services: dict[str, dict[str, str]] = {}
        """{Service: {address: hostname, or "" for none}}"""
        self.silent = False
        """Asked and never answers, as a DNS that is down."""
        self.asked: Counter[str] = Counter()
        """By how a question came and what became of it."""

    def endpoint(self, address: str, hostname: str) -> str:
        return hostname or address.replace(".", "-")

    def reply(self, wire: bytes, over_udp: bool) -> bytes:
        query = dns.message.from_wire(wire)
        response = dns.message.make_response(query)
        response.flags |= dns.flags.AA
        self._answer(query.question[0], response)
        whole = response.to_wire()
        room = max(PLAIN_UDP_BYTES, query.payload if query.edns >= 0 else 0) if over_udp else 65_535
        way = "udp" if over_udp else "tcp"
        if len(whole) <= room:
            self.asked[f"{way} {dns.rcode.to_text(response.rcode())}"] += 1
            return whole
        self.asked[f"{way} truncated"] += 1
        return self._cut(response, room)

    def _answer(self, question: dns.rrset.RRset, response: dns.message.Message) -> None:
        name = question.name.to_text(omit_final_dot=True).lower()
        inside = name.removesuffix(f".{self.domain}") if name.endswith(f".{self.domain}") else None
        labels = inside.split(".") if inside else []
        pods = dict(self.services.get(labels[-1], {})) if labels else {}
        records: list[str] = []
        if labels[:-1] == ["_http", "_tcp"] and question.rdtype == dns.rdatatype.SRV:
            # Each 100 parted among all, at least 1.
            weight = max(1, 100 // max(1, len(pods)))
            for address, hostname in pods.items():
                target = f"{self.endpoint(address, hostname)}.{labels[-1]}.{self.domain}."
                records.append(f"0 {weight} {self.engine_port} {target}")
                response.additional.append(dns.rrset.from_text(target, self.ttl, "IN", "A", address))
        elif len(labels) == 1 and question.rdtype == dns.rdatatype.A:
            records = list(pods)
        elif len(labels) == 2 and question.rdtype == dns.rdatatype.A:
            records = [address for address, hostname in pods.items() if self.endpoint(address, hostname) == labels[0]]
        if records:
            response.answer.append(
                dns.rrset.from_text_list(question.name, self.ttl, "IN", dns.rdatatype.to_text(question.rdtype), records)
            )
        else:
            response.set_rcode(dns.rcode.NXDOMAIN)
            response.authority.append(
                dns.rrset.from_text(
                    f"{ZONE}.", self.ttl, "IN", "SOA", f"ns.dns.{ZONE}. hostmaster.{ZONE}. 1 7200 1800 86400 5"
                )
            )

    def _cut(self, response: dns.message.Message, room: int) -> bytes:
        """As many records as fit, in order: answers first."""
        response.flags |= dns.flags.TC
        response.additional = []
        (rrset,) = response.answer
        records = list(rrset)
        while len(wire := response.to_wire()) > room:
            records.pop()
            response.answer = [dns.rrset.from_rdata_list(rrset.name, rrset.ttl, records)] if records else []
        return wire


@contextlib.contextmanager
def serving(server: HeadlessDns) -> Iterator[HeadlessDns]:
    """Answers on UDP and TCP of 127.0.0.1 while the context lasts."""

    class Udp(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            data, sock = self.request
            if not server.silent:
                sock.sendto(server.reply(data, over_udp=True), self.client_address)

    class Tcp(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while len(length := self.rfile.read(2)) == 2:
                reply = server.reply(self.rfile.read(struct.unpack("!H", length)[0]), over_udp=False)
                self.wfile.write(struct.pack("!H", len(reply)) + reply)

    class Threaded(socketserver.ThreadingTCPServer):
        allow_reuse_address = True
        daemon_threads = True

    servers: list[Any] = [
        socketserver.UDPServer(("127.0.0.1", server.port), Udp),
        Threaded(("127.0.0.1", server.port), Tcp),
    ]
    for one in servers:
        threading.Thread(target=one.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield server
    finally:
        for one in servers:
            one.shutdown()
            one.server_close()
