"""Whatever engines, Docker, the gateway's log, a name or a file of the state folder say, the controller goes on."""

import asyncio
import contextlib
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dns.message
import dns.rcode
import httpx
import orjson
import pytest
from prometheus_client import generate_latest

from manyeyes.cli import started_services
from manyeyes.config import fields
from manyeyes.config.custom_endpoint import Adapter, Endpoint
from manyeyes.config.loader import parse
from manyeyes.config.placement import PlacedCluster
from manyeyes.controller import metrics
from manyeyes.controller.autoscaling import store as scaling_memory
from manyeyes.controller.autoscaling.actuators import ActuatorError, HungRestarts
from manyeyes.controller.bounded import RequestFailed, bounded_request
from manyeyes.controller.config_sync import apply_plan
from manyeyes.controller.config_sync.effective_config import ChangeRejected, EffectiveConfig
from manyeyes.controller.health import vllm_metrics
from manyeyes.controller.health.states import EngineHealth, EngineState, ProbeResult
from manyeyes.controller.membership import engine_monitor
from manyeyes.controller.membership.dns import DnsResponder
from manyeyes.controller.membership.fleet import Fleet
from manyeyes.controller.membership.membership_store import MembershipStore
from manyeyes.controller.registry.registrations import RegistrationService
from manyeyes.controller.registry.registrations import load_registrations as registered
from manyeyes.controller.state_store import StateStore
from manyeyes.controller.supervision import keep_running
from manyeyes.controller.telemetry.access_log_receiver import AccessLog
from manyeyes.controller.telemetry.container_stats import parse_usage as container_use
from manyeyes.openai_adapter.config import ConfigReader
from manyeyes.openai_adapter.response_mapping import ExtractionError
from manyeyes.openai_adapter.upstream import EndpointClient
from manyeyes.openai_error import ApiError
from tests.integration.raw_tcp_engine import raw_engine
from tests.placed import placed
from tests.unit.test_controller_dns import SRV, fleet

ODD: list[Any] = [
    None,
    True,
    -1,
    0,
    10**400,
    1.5,
    float("nan"),
    float("inf"),
    "",
    "x",
    "10.1",
    [],
    [1],
    {},
    {"a": 1},
    {1: [2]},
    datetime(2024, 1, 1),
]
DAMAGED = [
    b"",
    b"\xff\xfe",
    b"\0",
    b"[" * 2000,
    b"- a",
    b"a",
    b"1",
    b"{{ a }}: b",
    b"a: 2024-13-45",
    b"a: &a [*a]",
    b"!!set {a}",
    b"a: !!bool x",
]


def cluster(extra: str = "") -> PlacedCluster:
    return placed(
        "pools: [{name: big, model: m}]\nengines:\n"
        + "".join(
            f"- {{name: {name}, pool: big, address: '127.0.0.1:{port}', flavour: emulated}}\n"
            for name, port in (("a", 9), ("b", 10))
        )
        + extra
    )


# --- DNS


def rcode(wire: bytes | None) -> int:
    assert wire
    return dns.message.from_wire(wire).rcode()


@pytest.mark.parametrize("address", ["10.1", "010.0.0.7", "0x7f000001", "127.1", "x", "fe80::1", "", "\0"])
def test_a_member_with_no_address_is_left_out_and_the_others_stay(address: str) -> None:
    of = fleet()
    of.members["e-0"].address = address
    reply = DnsResponder(of).to(dns.message.make_query(SRV, "SRV").to_wire(), over_udp=True)
    assert reply
    assert [record.to_text() for rrset in dns.message.from_wire(reply).answer for record in rrset] == [
        "0 1 9001 e-1.engine.manyeyes.internal."
    ]


def test_an_answer_that_cannot_be_made_is_servfail_with_the_question(monkeypatch: pytest.MonkeyPatch) -> None:
    of = fleet()
    monkeypatch.setattr(of, "serving", lambda pool: 1 / 0)
    for edns in (False, True):
        query = dns.message.make_query(SRV, "SRV", use_edns=edns)
        reply = DnsResponder(of).to(query.to_wire(), over_udp=True)
        assert reply
        read = dns.message.from_wire(reply)
        assert (read.id, read.rcode(), read.question) == (query.id, dns.rcode.SERVFAIL, query.question)


def test_random_queries_get_an_answer_or_none_and_never_an_exception() -> None:
    chance = random.Random(3)
    of = fleet()
    answers = DnsResponder(of)
    seeds = [dns.message.make_query(name, kind, use_edns=edns).to_wire()
             for name in (SRV, "big.pool.manyeyes.internal", ".", "e-0.engine.manyeyes.internal") for kind in ("SRV", "A", "ANY", "AXFR") for edns in (None, 0)]  # fmt: skip
    seeds += [
        b"\0\1\1\0\0\1\0\0\0\0\0\0\xc0\x0c\0\1\0\1",
        b"\0\1\1\0\0\2\0\0\0\0\0\0" + b"\0\0\1\0\1" * 2,
        b"\0\1\1\0\xff\xff" + bytes(6),
    ]
    for _ in range(2500):
        wire = bytearray(chance.choice(seeds))
        for _ in range(chance.randint(0, 5)):
            wire[chance.randrange(len(wire))] = chance.randrange(256)
        wire = wire[: chance.choice([len(wire), chance.randint(0, len(wire))])] + bytes(chance.choice([0, 0, 5, 600]))
        reply = answers.to(bytes(wire), over_udp=bool(chance.getrandbits(1)))
        if len(wire) >= 12 and not wire[2] & 0x80:
            assert reply, bytes(wire)
        assert reply is None or reply[:2] == wire[:2]
    assert rcode(answers.to(dns.message.make_query(SRV, "SRV").to_wire(), over_udp=True)) == dns.rcode.NOERROR
    assert sum(len(key[0]) for key in answers._cache) < 4 << 20


# --- the gateway's log

LINE = {"event": "request", "status": 200, "attempts": "10.0.0.1:9000", "attempt_status": "200", "connect_s": "0.001", "header_s": "0.1",
        "response_s": "0.2", "total_s": 0.2, "pool": "big", "asked_pool": "big", "engine": "e-0", "fallback": "", "cache": "", "key": "", "stream": "",
        "bytes_in": 10, "bytes_out": 10, "traced": "1", "at": "2026-11-30T00:00:00+00:00", "trace": "0" * 32, "span": "0" * 16, "parent": "",
        "method": "POST", "path": "/v1/x", "request": "r", "model": "m"}  # fmt: skip


def test_random_log_datagrams_end_nothing_and_no_metric_is_wrong() -> None:
    chance = random.Random(8)
    made = fleet()
    made.cluster = placed(
        "pools: [{name: big, model: m}]\nengines: [{name: e-0, pool: big, address: 'h:9000'}]\ntracing: {enabled: true, endpoint: 'http://h:1'}"
    )
    log = AccessLog(made)
    raw: list[bytes] = [
        b"",
        b"{",
        b"\xff" * 999,
        b"{" * 5000,
        b'{"a":' * 5000,
        b"[]",
        b"<190>nginx: {}",
        b"null",
        b'{"status":NaN}',
        b'{"status":1e400}',
    ]
    values = ["null", "true", "-1", "1e400", "NaN", "1e300", "9" * 400, "9" * 5000, '""', '"x"', "[]", "[1]", "{}", '{"a":{}}', '"\\ud800"', '"a, b : c"', '"-"', '"nan"', '"inf"', '"' + "1.1.1.1:1, " * 50 + '"', "200.5"]  # fmt: skip
    for _ in range(2500):
        line = dict(LINE)
        text = orjson.dumps(line).decode()
        for name in chance.sample(list(line), chance.randint(1, 3)):
            text = text.replace(f'"{name}":{orjson.dumps(line[name]).decode()}', f'"{name}":{chance.choice(values)}')
        datagram = bytearray(text.encode())
        for _ in range(chance.choice([0, 0, 0, 3])):
            datagram[chance.randrange(len(datagram))] = chance.randrange(256)
        raw.append(bytes(datagram))
    for line_bytes in raw:
        log.record(line_bytes)
    text = generate_latest().decode()
    for line_ in text.splitlines():
        if not line_.startswith("#"):
            assert 0 <= float(line_.rpartition(" ")[2]) < 1e18 or "_timestamp" in line_, line_
    metrics.UNREADABLE.inc(0)
    log.count_dropped()


# --- engines


@pytest.mark.parametrize("number", ["NaN", "+Inf", "-Inf", "-1", "1e400", "1e300", "x", "", "9" * 400])
def test_a_counter_that_counts_nothing_makes_the_engine_one_that_says_nothing(number: str) -> None:
    for name in ("num_requests_running", "generation_tokens_total", "kv_cache_usage_perc"):
        text = f'\nvllm:num_requests_running{{a="b"}} 1\nvllm:{name}{{a="b"}} {number}\n'.encode()
        counters = vllm_metrics.read(text, {})
        if counters is not None:
            orjson.dumps(vllm_metrics.Loads().take(1.0, counters, 3).in_flight)
        else:
            continue
        assert name == "num_requests_running"  # its first line is right, and the second one is not reached
        raise AssertionError(number)


ANSWERS = [
    b"", b"\xff" * 100, b"HTTP/1.1 999999999 x\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", b"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 200_000, b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc",
    b"HTTP/1.1 200 OK\r\nContent-Length: 40000\r\n\r\n" + b"[" * 40_000, b"HTTP/1.1 200 \xff\r\n\xff: \xff\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n" * 500,
]  # fmt: skip


@pytest.mark.parametrize("raw", ANSWERS, ids=range(len(ANSWERS)))
async def test_an_odd_http_answer_is_a_bounded_reply_or_none(raw: bytes) -> None:
    with raw_engine(0, lambda path: raw, hang_up=True) as engine:
        url = f"http://127.0.0.1:{engine.port}/x"
        async with httpx.AsyncClient(trust_env=False) as client:
            with contextlib.suppress(RequestFailed):
                reply = await bounded_request(client, "GET", url, 5, max_bytes=64 << 10)
                assert len(reply.body) <= 64 << 10
                with contextlib.suppress(ValueError):
                    reply.json()


@pytest.mark.parametrize(
    "url", ["http://a..b/x", f"http://{'a' * 64}/x", "http://[::1/x", "http://h:99999/x", "nonsense", "http://h:0/"]
)
async def test_a_url_that_is_none_is_no_reply(url: str) -> None:
    async with httpx.AsyncClient(trust_env=False) as client:
        with pytest.raises(RequestFailed):
            await bounded_request(client, "GET", url, 5)


@pytest.mark.parametrize("host", ["a..b", "x" * 64, "10.1", "0x7f000001", "1", "a\0b", "\u00fc" * 70, "-", ""])
async def test_a_malformed_host_is_one_that_does_not_resolve(host: str) -> None:
    with pytest.raises(fields.LookupFailed):
        await fields.resolve_host(host, 80)
    pool = parse("pools: [{name: a, model: m, remote: {url: 'https://h/v1'}}]").pools[0]
    assert pool.remote
    there = pool.remote.model_copy(update={"url": f"https://{host}/v1"})
    assert await engine_monitor.probe_remote(there, 5)


def test_docker_statistics_of_any_form_are_numbers_or_nothing() -> None:
    right: dict[str, Any] = {
        "memory_stats": {"usage": 5, "limit": 9, "stats": {"inactive_file": 1}},
        "cpu_stats": {"cpu_usage": {"total_usage": 10}},
    }
    assert container_use(right)
    for odd in ODD:
        container_use(odd)
        for way in (("memory_stats",), ("memory_stats", "usage"), ("memory_stats", "stats"), ("memory_stats", "limit"), ("cpu_stats",), ("cpu_stats", "cpu_usage"), ("cpu_stats", "cpu_usage", "total_usage")):  # fmt: skip
            document = orjson.loads(orjson.dumps(right))
            inner = document
            for step in way[:-1]:
                inner = inner[step]
            inner[way[-1]] = odd
            found = container_use(document)
            assert found is None or 0 <= found.cpu_s + found.memory_bytes + found.limit_bytes < 2**66


# --- hung engines


class Docker:
    """Containers of which the first one is missing."""

    def __init__(self) -> None:
        self.restarted: list[str] = []

    async def states(self) -> dict[str, str]:
        return {"a": "running", "b": "running"}

    async def started_at(self, name: str) -> datetime:
        if name == "a":
            raise ActuatorError("there is no such container")
        return datetime.now(UTC) - timedelta(hours=1)

    async def restart(self, name: str) -> None:
        self.restarted.append(name)


async def test_an_engine_without_a_container_keeps_no_other_hung_one_from_its_restart() -> None:
    of = Fleet(cluster())
    for member in of.members.values():
        member.health = EngineHealth(state=EngineState.DOWN, last=ProbeResult.SILENT, settled=True)
        member.since = datetime.now(UTC) - timedelta(hours=1)
    docker = Docker()
    await HungRestarts(of, docker, lambda name: False).tick()  # type: ignore[arg-type]
    for _ in range(3):
        await asyncio.sleep(0)
    assert docker.restarted == ["b"]


# --- tasks, listeners, registrations


async def test_a_task_that_fails_is_begun_anew_and_one_that_is_cancelled_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("manyeyes.controller.supervision.PAUSE_S", 0)
    began = 0
    waits = asyncio.Event()

    async def fails_twice() -> None:
        nonlocal began
        began += 1
        if began < 3:
            raise ValueError(began)
        waits.set()
        await asyncio.Event().wait()

    before = metrics.TASK_FAILURES.labels("test")._value.get()
    task = asyncio.create_task(keep_running("test", fails_twice))
    await asyncio.wait_for(waits.wait(), 10)
    assert metrics.TASK_FAILURES.labels("test")._value.get() == before + 2
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_a_change_that_a_listener_cannot_take_is_undone_in_all_of_them() -> None:
    in_force, heard = EffectiveConfig(cluster()), list[tuple[str, PlacedCluster]]()

    def broken(changed: PlacedCluster) -> None:
        if len(changed.engines) > 2:
            raise ZeroDivisionError

    in_force.listen(lambda changed: heard.append(("first", changed)))
    in_force.listen(broken)
    in_force.listen(lambda changed: heard.append(("last", changed)))
    second = cluster("- {name: c, pool: big, address: '127.0.0.1:11', flavour: emulated}\n")
    with pytest.raises(ChangeRejected, match="cannot be applied: ZeroDivisionError"):
        in_force.apply_written(second)
    assert [name for name, _ in heard] == ["first", "last"] * 2
    assert in_force.cluster is heard[-1][1] is heard[-2][1]
    assert len(in_force.cluster.engines) == 2


async def test_a_registration_that_a_listener_cannot_take_leaves_no_document(tmp_path: Path) -> None:
    kept, in_force = StateStore(tmp_path), EffectiveConfig(cluster())

    def broken(changed: PlacedCluster) -> None:
        if len(changed.engines) > 2:
            raise ZeroDivisionError

    in_force.listen(broken)
    new = in_force.cluster.engines[0].model_copy(update={"name": "new", "address": "127.0.0.1:11"})
    with pytest.raises(ApiError, match="cannot be applied"):
        await RegistrationService(in_force, kept).add_engine(new)
    assert texts(tmp_path) == {}
    assert [engine.name for engine in in_force.cluster.engines] == ["a", "b"]


def texts(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.rglob("*.yaml")}


async def test_a_refused_removal_or_weight_leaves_the_document_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, in_force = StateStore(tmp_path), EffectiveConfig(cluster())
    registrations = RegistrationService(in_force, kept)
    one = in_force.cluster.engines[0].model_copy(update={"name": "new", "address": "127.0.0.1:11"})
    await registrations.add_engine(one)
    await registrations.set_weight("a", 3)
    before = texts(tmp_path)

    def refuse(_: Any) -> None:
        raise ChangeRejected(["cluster.yaml changed meanwhile"])

    monkeypatch.setattr(in_force, "apply_registrations", refuse)
    other = one.model_copy(update={"name": "other"})
    for change in (registrations.remove_engine("new"), registrations.set_weight("new", 7), registrations.set_weight("a", 9), registrations.add_engine(other)):  # fmt: skip
        with pytest.raises(ApiError, match="changed meanwhile"):
            await change
    assert texts(tmp_path) == before


# --- state


@pytest.mark.parametrize("content", DAMAGED, ids=range(len(DAMAGED)))
def test_damaged_state_is_set_aside_or_empty(tmp_path: Path, content: bytes) -> None:
    for folder in ("engines", "pools"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "odd.yaml").write_bytes(content)
    for name in ("held", "members", "scaling", "weights", "configuration", "adapter"):
        (tmp_path / f"{name}.yaml").write_bytes(content)
    (tmp_path / "started.yaml").write_bytes(content)
    kept = StateStore(tmp_path)
    assert Fleet(cluster(), kept).members["a"].address is None
    assert scaling_memory.load_state(kept).desired == {}
    found, _ = registered(kept, cluster())
    assert (found.engines, found.pools, found.weights) == ((), (), ())
    assert ConfigReader(tmp_path).changed() is None
    assert started_services.services(tmp_path) == {}
    with contextlib.suppress(apply_plan.UnknownComposeState):
        apply_plan.parse_compose_state(content.decode("utf-8", "replace"), None)


def test_state_with_random_values_is_taken_or_set_aside(tmp_path: Path) -> None:
    chance = random.Random(2)
    for _ in range(25):
        kept = StateStore(tmp_path)
        for name, document in (
            ("held", {"a": "why"}),
            (
                "members",
                {
                    "boot": MembershipStore(None)._read("x") or "",
                    "engines": {"a": {"at": "big 127.0.0.1:9", "state": "up", "address": "10.1"}},
                },
            ),
            ("scaling", {"wanted": {"big": 1}, "fixed": {}, "going": ["a"], "resting": []}),
            ("weights", {"a": 2}),
            ("engines/new", {"name": "new", "pool": "big", "address": "h:1"}),
            ("pools/new", {"name": "new", "model": "m"}),
        ):
            changed: Any = dict(document)
            changed[chance.choice(list(changed))] = chance.choice(ODD)
            kept.write(name, chance.choice([changed, changed, chance.choice(ODD)]))
        of = Fleet(cluster(), kept)
        assert all(member.address is None or fields.parse_address(member.address) for member in of.members.values())
        scaling_memory.load_state(kept)
        registered(kept, cluster())
        for other in (changed, {"services": chance.choice(ODD)}, {"services": {"a": chance.choice(ODD)}}, {"services": {"a": {"labels": {"manyeyes.engine": "a"}, "command": chance.choice(ODD)}}}):  # fmt: skip
            kept.write("started", other)
            path = tmp_path / "started.yaml"
            with contextlib.suppress(apply_plan.UnknownComposeState, FileNotFoundError):
                apply_plan.parse_compose_state(path.read_text(), None)
            started_services.services(tmp_path)


# --- the adapter


def endpoint() -> Endpoint:
    return Endpoint(url="http://h/x", template={"q": "{USER_PROMPT}"}, answer="$.a")


async def test_each_former_connection_of_the_adapter_is_closed_after_its_own_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from manyeyes.openai_adapter.app import EndpointApp
    from manyeyes.openai_adapter.config import AdaptedEngine, AdapterConfig

    closed: list[float] = []

    async def close(self: EndpointClient) -> None:
        closed.append(self.limits.answer_timeout_s)

    monkeypatch.setattr(EndpointClient, "close", close)
    spoken = AdaptedEngine(name="e", port=9100, pool="big", model="m", names=("big",), endpoint=endpoint())
    book = AdapterConfig(max_body_mb=1, limits=Adapter(answer_timeout_s=3600), engines=(spoken,))
    speaker = EndpointApp(book, spoken, tmp_path)
    short = replace_limits(book, 0.01)
    speaker.take(short, spoken)
    speaker.take(replace_limits(book, 50), spoken)
    for _ in range(500):
        if closed:
            break
        await asyncio.sleep(0.01)
    assert closed == [0.01]
    await speaker.close()
    assert sorted(closed) == [0.01, 50, 3600]


def replace_limits(book: Any, seconds: float) -> Any:
    return book.model_copy(update={"limits": Adapter(answer_timeout_s=seconds)})


def test_a_path_that_cannot_be_followed_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    import jsonpath

    from manyeyes.openai_adapter import response_mapping

    class Broken:
        def findall(self, document: Any) -> list[Any]:
            raise jsonpath.JSONPathError("too deep", token=None)

    monkeypatch.setattr(response_mapping, "_compiled", lambda path: Broken())
    with pytest.raises(ExtractionError):
        response_mapping.extract_text("$.a", {"a": 1})
    assert response_mapping.extract_usage(endpoint(), {"a": 1}) is None
