"""Membership as DNS answers, byte for byte as nginx gets them."""

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import pytest

from manyeyes.controller import metrics
from manyeyes.controller.health import state_machine
from manyeyes.controller.health.states import EngineHealth, EngineState, ProbeResult, Transition
from manyeyes.controller.membership.dns import MAX_CACHED, DnsResponder, build_response
from manyeyes.controller.membership.fleet import Fleet
from tests.placed import placed

SRV = "_http._tcp.big.pool.manyeyes.internal"


def fleet(count: int = 2) -> Fleet:
    engines = "".join(f"- {{name: e-{number}, pool: big, address: 'h:{9000 + number}'}}\n" for number in range(count))
    made = Fleet(placed(f"pools: [{{name: big, model: m}}, {{name: idle, model: n}}]\nengines:\n{engines}"))
    for number, member in enumerate(made.members.values()):
        member.address = f"10.0.{number // 250}.{number % 250 + 1}"
        member.health = EngineHealth(state=EngineState.UP, settled=True)
    return made


def ask(of: Fleet, name: str, kind: str = "SRV", over_udp: bool = True, edns: bool = True) -> dns.message.Message:
    query = dns.message.make_query(name, kind, use_edns=edns, payload=4096)
    made = build_response(query.to_wire(), of, over_udp)
    assert made
    return dns.message.from_wire(made[0])


def srv(of: Fleet, over_udp: bool = True) -> list[str]:
    """Ports and names of a pool's engines."""
    return sorted(
        record.to_text().removeprefix("0 1 ") for rrset in ask(of, SRV, over_udp=over_udp).answer for record in rrset
    )


E_0, E_1 = "9000 e-0.engine.manyeyes.internal.", "9001 e-1.engine.manyeyes.internal."
DOWN = EngineHealth(state=EngineState.DOWN, last=ProbeResult.GONE, settled=True)


def test_a_pool_is_srv_records_with_port_and_name_and_the_addresses_beside_them() -> None:
    reply = ask(fleet(), SRV)
    assert srv(fleet()) == [E_0, E_1]
    assert {record.to_text() for rrset in reply.additional for record in rrset} == {"10.0.0.1", "10.0.0.2"}
    assert {rrset.ttl for rrset in reply.answer} == {1}
    assert reply.flags & dns.flags.AA


def test_names_of_pools_and_engines_have_addresses() -> None:
    of = fleet()
    addresses = {record.to_text() for record in ask(of, "big.pool.manyeyes.internal", "A").answer[0]}
    assert addresses == {"10.0.0.1", "10.0.0.2"}
    assert ask(of, "E-1.engine.ManyEyes.internal", "A").answer[0][0].to_text() == "10.0.0.2"
    assert ask(of, "e-1.engine.manyeyes.internal", "AAAA").answer == []


@pytest.mark.parametrize(
    ("first", "listed"),
    [
        (DOWN, [E_1]),
        (state_machine.restore(EngineState.SLEEPING, 0.0), [E_1]),
        (EngineHealth(state=EngineState.SUSPECT, settled=True), [E_0, E_1]),
    ],
    ids=["down", "sleeping", "suspect"],
)
def test_engines_that_get_requests_are_listed(first: EngineHealth, listed: list[str]) -> None:
    of = fleet()
    of.members["e-0"].health = first
    assert srv(of) == listed


def test_a_pool_known_to_be_empty_is_an_empty_answer_and_not_an_error() -> None:
    of = fleet()
    for member in of.members.values():
        member.health = DOWN
    assert (ask(of, SRV).rcode(), ask(of, SRV).answer) == (dns.rcode.NOERROR, [])
    idle = ask(of, "_http._tcp.idle.pool.manyeyes.internal")
    assert (idle.rcode(), idle.answer) == (dns.rcode.NOERROR, [])


def test_while_nothing_is_known_the_answer_is_servfail_so_that_nginx_keeps_its_members() -> None:
    of = fleet()
    of.members["e-1"].health = EngineHealth()
    assert ask(of, SRV).rcode() == dns.rcode.SERVFAIL


@pytest.mark.parametrize(
    "name",
    ["_http._tcp.nope.pool.manyeyes.internal", "nope.engine.manyeyes.internal", "manyeyes.internal", "example.com",
     "_smtp._tcp.big.pool.manyeyes.internal", "x.big.pool.manyeyes.internal", "pool.manyeyes.internal", "."],
)  # fmt: skip
def test_any_other_name_does_not_exist(name: str) -> None:
    assert ask(fleet(), name).rcode() == dns.rcode.NXDOMAIN


def test_forty_engines_fit_one_edns_answer_and_without_edns_it_is_truncated_and_whole_over_tcp() -> None:
    of = fleet(40)
    small = ask(of, SRV, edns=False)
    assert small.flags & dns.flags.TC
    assert small.answer == []
    assert len(srv(of)) == len(srv(of, over_udp=False)) == 40


@pytest.mark.parametrize("wire", [b"", b"x", b"\0" * 12, b"\xff" * 40, bytes(range(64))])
def test_bytes_that_are_no_query_get_no_answer_or_an_error_and_never_raise(wire: bytes) -> None:
    build_response(wire, fleet(), over_udp=True)


def test_an_answer_is_made_once_and_anew_when_the_fleet_changes() -> None:
    of = fleet()
    answers = DnsResponder(of)
    query = dns.message.make_query(SRV, "SRV")
    first = answers.to(query.to_wire(), over_udp=True)
    query.id = 4242
    second = answers.to(query.to_wire(), over_udp=True)
    assert first is not None
    assert second is not None
    assert (second[:2], second[2:]) == ((4242).to_bytes(2, "big"), first[2:])
    of.apply_transition(of.members["e-0"], Transition(DOWN))
    third = answers.to(query.to_wire(), over_udp=True)
    assert third is not None
    assert [record.to_text() for record in dns.message.from_wire(third).answer[0]] == [
        "0 1 9001 e-1.engine.manyeyes.internal."
    ]


def test_udp_and_tcp_are_kept_apart_and_every_answer_counts() -> None:
    answers = DnsResponder(fleet(40))
    wire = dns.message.make_query(SRV, "SRV", use_edns=False).to_wire()
    before = metrics.DNS_ANSWERS.labels("big", "NOERROR")._value.get()
    for over_udp in (True, False, True, False):
        reply = answers.to(wire, over_udp)
        assert reply
        assert bool(dns.message.from_wire(reply).flags & dns.flags.TC) is over_udp
    assert metrics.DNS_ANSWERS.labels("big", "NOERROR")._value.get() == before + 4


def test_ever_new_names_do_not_fill_the_memory() -> None:
    answers = DnsResponder(fleet())
    for number in range(MAX_CACHED + 100):
        answers.to(dns.message.make_query(f"n{number}.pool.manyeyes.internal", "A").to_wire(), over_udp=True)
    assert len(answers._cache) <= MAX_CACHED
    assert answers.to(b"", over_udp=True) is None
