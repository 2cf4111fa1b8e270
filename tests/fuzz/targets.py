"""What is fuzzed: for each target, the inputs that hypothesis makes and a check that raises when an input is not handled.

An input is bytes, so that a finding is a file: tests/fuzz/corpus/TARGET/HASH. The suite runs all of them again.
"""

import asyncio
import contextlib
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import quote

import dns.message
import httpx
import orjson
import yaml
from hypothesis import strategies as st

from manyeyes.config import fields, validation
from manyeyes.config.credentials import ApiKeys, KeysError, UsersError, parse_keys, parse_users
from manyeyes.config.loader import ConfigError, parse
from manyeyes.config.placement import PlacementError, parse_inventory, place_engines
from manyeyes.controller import metrics
from manyeyes.controller.api import create_app
from manyeyes.controller.autoscaling import store
from manyeyes.controller.config_sync import apply_plan
from manyeyes.controller.config_sync.effective_config import EffectiveConfig
from manyeyes.controller.health import probe, vllm_metrics
from manyeyes.controller.health.http_connection import ProbeReply
from manyeyes.controller.membership.dns import DnsResponder
from manyeyes.controller.membership.fleet import Fleet
from manyeyes.controller.membership.membership_store import MembershipStore
from manyeyes.controller.registry.app import mount_registry
from manyeyes.controller.registry.registrations import load_registrations
from manyeyes.controller.settings import ControllerSettings
from manyeyes.controller.state_store import StateStore
from manyeyes.controller.telemetry.access_log_receiver import AccessLog
from manyeyes.render.nginx.files import build_generation, gateway_files
from manyeyes.render.nginx.naming import CONTAINER_PATHS
from tests.placed import placed

ROOT = Path(__file__).resolve().parents[2]
KEY = "an-admin-key-of-a-test"
CLUSTER = (
    "pools: [{name: big, model: m}, {name: small, model: s, fallback: big}]\n"
    "engines: [{name: e-0, pool: big, address: '10.0.0.1:9000'}, {name: e-1, pool: small, address: '10.0.0.2:9000'}]\n"
    "tracing: {enabled: true, endpoint: 'http://h:1'}\ncontroller: {register_loopback: true}\n"
)
LINE = (
    b'<190>nginx: {"event":"request","status":200,"attempts":"10.0.0.1:9000","attempt_status":"200","connect_s":"0.001",'
    b'"header_s":"0.1","response_s":"0.2","total_s":0.2,"pool":"big","asked_pool":"big","engine":"e-0","fallback":"",'
    b'"cache":"","key":"","stream":"","bytes_in":10,"bytes_out":10,"traced":"1","at":"2026-11-30T00:00:00+00:00",'
    b'"trace":"00000000000000000000000000000000","span":"0000000000000000","parent":"","method":"POST","path":"/v1/x",'
    b'"request":"r","model":"m"}'
)
METRICS = (
    b'# HELP x y\nvllm:num_requests_running{model_name="m"} 1.0\nvllm:num_requests_waiting{model_name="m"} 0.0\n'
    b'vllm:generation_tokens_total{model_name="m"} 17.0\nvllm:kv_cache_usage_perc{model_name="m"} 0.5\n'
)
PIECES = [b"{{ a }}", b"[", b"]", b"{", b"}", b": ", b"- ", b"\n", b"\t", b"&a ", b"*a", b"<<: ", b"!!set ", b"!!int ", b"? ", b"'", b'"', b"#", b"|", b"\0",
          b"\xff", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"2024-13-45", b"0x", b".nan", b".inf", b"1e999", b"9" * 30, b"-1", b"null", b"~", b"---\n", b"10.1", b"a..b"]  # fmt: skip


@dataclass(frozen=True)
class Target:
    inputs: st.SearchStrategy[bytes]
    check: Callable[[bytes], None]


# --- inputs


@st.composite
def edited(draw: st.DrawFn, sources: list[bytes]) -> bytes:
    """One of the sources with a few pieces cut, copied or put in."""
    text = draw(st.sampled_from(sources))
    for _ in range(draw(st.integers(0, 5))):
        at, length = draw(st.integers(0, len(text))), draw(st.sampled_from([0, 0, 1, 2, 7, 40, 300]))
        piece = draw(st.one_of(st.sampled_from(PIECES), st.binary(max_size=4), st.just(text[at : at + length])))
        text = text[:at] + piece + text[at + length :]
    return text


SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20),
    st.sampled_from(["auto", "tiny", "10.1", "http://a..b", "x:99999", "h:1", "127.0.0.1:9", "https://api.example.com/v1", "big", "e-0", "$.a", "a" * 300]),
)  # fmt: skip
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)),
    max_leaves=8,
)


@st.composite
def changed_tree(draw: st.DrawFn, source: Any) -> Any:
    """The source with one or two of its values replaced."""
    for _ in range(draw(st.integers(1, 2))):
        steps = draw(st.lists(st.integers(0, 30), min_size=1, max_size=5))
        source = _replaced(source, steps, draw(VALUES))
    return source


def _replaced(value: Any, steps: list[int], new: Any) -> Any:
    if not steps or not isinstance(value, dict | list) or not value:
        return new
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    key = keys[steps[0] % len(keys)]
    copied = dict(value) if isinstance(value, dict) else list(value)
    copied[key] = _replaced(value[key], steps[1:], new)
    return copied


def _yaml(value: Any) -> bytes:
    return yaml.safe_dump(value, allow_unicode=True).encode("utf-8", "surrogatepass")


def _config_sources() -> list[bytes]:
    sources = [path.read_bytes() for path in sorted((ROOT / "config/examples").glob("*.yaml"))]
    return [
        *sources,
        CLUSTER.encode(),
        b"keys:\n- {name: a, sha256: " + b"0" * 64 + b", in_flight: 3}\n",
        b"users:\n- {name: a, password: scrypt}\n",
        b"flavour: cuda\ngpus: [{index: 0, uuid: GPU-1, name: x, memory_gb: 24}]\nmissing_models: [m]\n",
        b"services:\n  e-0: {image: x, command: [a, --served-model-name, b], labels: {manyeyes.engine: e-0, manyeyes.pool: big}}\n",
    ]


def _trees() -> st.SearchStrategy[bytes]:
    whole = placed((ROOT / "config/examples/three-4090.yaml").read_text()).model_dump(mode="json")
    return st.one_of(changed_tree(whole), changed_tree(yaml.safe_load(CLUSTER))).map(_yaml)


# --- checks


def check_config(raw: bytes) -> None:
    """Every file of an operator: its parser returns, or raises its own error."""
    text = raw.decode("utf-8", "replace")
    for parser, error in ((parse, ConfigError), (parse_keys, KeysError), (parse_users, UsersError)):
        problems = ""
        try:
            parser(text, Path("file.yaml"))
        except error as problem:
            problems = str(problem)
        assert "bug in ManyEyes" not in problems, problems
    with contextlib.suppress(PlacementError):
        parse_inventory(text)
    with contextlib.suppress(apply_plan.UnknownComposeState):
        apply_plan.parse_compose_state(text, text)
    with contextlib.suppress(ConfigError, PlacementError):
        # What is valid is also rendered: an inventory without GPUs is the only reason not to place its engines.
        cluster = place_engines(parse(text), parse_inventory("flavour: emulated"))
        build_generation(gateway_files(cluster, ApiKeys(), CONTAINER_PATHS))


@cache
def _log() -> AccessLog:
    return AccessLog(Fleet(placed(CLUSTER)))


def check_datagram(raw: bytes) -> None:
    _log().record(raw)
    orjson.dumps([_log().p95_ms("big"), _log().first_byte_p95_ms("big")])


@cache
def _responder() -> DnsResponder:
    fleet = Fleet(placed(CLUSTER))
    for number, member in enumerate(fleet.members.values()):
        fleet.set_address(member, f"10.0.0.{number + 1}")
    return DnsResponder(fleet)


def check_dns(raw: bytes) -> None:
    before = metrics.TASK_FAILURES.labels("dns_answer")._value.get()
    for over_udp in (True, False):
        reply = _responder().to(raw, over_udp)
        assert reply is None or len(reply) <= (4096 if over_udp else 65_535)
        if reply is not None:
            assert reply[2] & 0x80
            if not reply[2] & 0x78:  # a query: dnspython reads no error about a malformed update
                dns.message.from_wire(reply)
    assert metrics.TASK_FAILURES.labels("dns_answer")._value.get() == before, "an exception became SERVFAIL"


def check_answer(raw: bytes) -> None:
    """Bodies of /metrics, /load, /health and /v1/models."""
    counters = vllm_metrics.read(raw, {})
    if counters is not None:
        load = vllm_metrics.Loads().take(1.0, counters, 3)
        orjson.dumps([load.in_flight, load.running, load.waiting])
    for status in (200, 503):
        reply = ProbeReply(status, raw)
        probe._names(reply)
        probe._canary(reply)


def check_host(raw: bytes) -> None:
    """A host or address that is accepted has one meaning, and one that is not has a sentence."""
    text = raw.decode("utf-8", "replace")
    if not fields.host_problem(text):
        if fields.parse_address(text) is not None:
            assert str(ip_address(text)) == text.lower() or ":" in text
        else:
            assert text.isascii()
            assert all(0 < len(label) < 64 for label in text.removesuffix(".").split("."))
    for check in (fields._check_address, fields._check_url, fields._check_host, fields._check_domain):
        with contextlib.suppress(ValueError):
            check(text)
    fields.port_problem(text)


STATE = ("held", "members", "scaling", "weights", "lineage", "engines/new", "pools/new", "configuration", "adapter")


def check_state(raw: bytes) -> None:
    """Any content in any file of the state folder: it is used, or set aside."""
    with tempfile.TemporaryDirectory() as folder:
        state_store = StateStore(Path(folder))
        for name in STATE:
            path = Path(folder) / f"{name}.yaml"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(raw)
        cluster = placed(CLUSTER)
        Fleet(cluster, state_store)
        MembershipStore(state_store).drained()
        store.load_state(state_store)
        registered, _ = load_registrations(state_store, cluster)
        assert not validation.problems(EffectiveConfig(cluster, registered).cluster)


PATHS = [
    "/api/engines", "/api/engines/e-0", "/api/engines/new", "/api/engines/e-0/drain", "/api/engines/e-0/resume", "/api/pools", "/api/pools/new",
    "/api/pools/big", "/api/models", "/api/annotations", "/api/annotations/x", "/api/events", "/status", "/metrics", "/sd", "/live", "/api/nothing",
]  # fmt: skip
BODIES: list[dict[str, Any]] = [
    {"name": "new", "pool": "big", "address": "127.0.0.1:9"},
    {"name": "new", "url": "http://127.0.0.1:9", "model": "m", "max_in_flight": 3, "weight": 2},
    {"name": "new", "pool": "big", "endpoint": {"url": "http://127.0.0.1:9/x", "template": {"q": "{USER_PROMPT}"}, "answer": "$.a"}},
    {"name": "new", "model": "org/M", "remote": {"url": "http://127.0.0.1:9/v1"}, "aliases": ["a"], "fallback": "big"},
    {"name": "new", "model": "org/M", "media": {"images_per_prompt": 3}, "slo": {"ttft_s": 1}},
    {"weight": 3}, {"reason": "x"}, {"text": "x", "seconds": 1},
]  # fmt: skip


METHODS = ["GET", "POST", "POST", "POST", "PATCH", "DELETE", "PUT", "HEAD", "OPTIONS"]


@st.composite
def calls(draw: st.DrawFn) -> bytes:
    """JSON of [method, path, body as text, headers]."""
    body = draw(st.one_of(st.sampled_from(BODIES).flatmap(changed_tree), st.sampled_from(BODIES), VALUES))
    try:
        text = json.dumps(body, ensure_ascii=False)
    except (TypeError, ValueError):
        text = "{"
    raw = text.encode("utf-8", "surrogatepass")
    if draw(st.integers(0, 5)) == 0:
        raw = draw(edited([raw]))
    path = draw(st.one_of(st.sampled_from(PATHS), st.text(max_size=12).map(lambda name: f"/api/engines/{name}")))
    method = draw(st.sampled_from(METHODS))
    return json.dumps([method, path, raw.decode("latin-1")]).encode()


class RegistryApi:
    """The application of the registry on a state folder of its own."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="manyeyes-fuzz-"))
        (self.folder / "admin.key").write_text(KEY)
        self.effective = EffectiveConfig(placed(CLUSTER))
        fleet = Fleet(self.effective.cluster)
        self.effective.listen(fleet.apply)
        requests = AccessLog(fleet)
        app = create_app(fleet, requests)
        settings = ControllerSettings(state=self.folder, secrets=self.folder)
        mount_registry(app, fleet, self.effective, StateStore(self.folder), settings)
        self.loop = asyncio.new_event_loop()
        transport = httpx.ASGITransport(app)  # it raises what the application does not handle
        self.client = httpx.AsyncClient(transport=transport, base_url="http://controller", trust_env=False)

    async def call(self, method: str, path: str, body: bytes) -> httpx.Response:
        headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
        path = "/" + quote(path.removeprefix("/").encode("utf-8", "surrogatepass"))
        return await self.client.request(method, path, content=body, headers=headers)


@cache
def _api() -> RegistryApi:
    return RegistryApi()


def check_registry(raw: bytes) -> None:
    try:
        method, path, body = json.loads(raw)
        content = body.encode("latin-1")
        assert method in METHODS
        assert isinstance(path, str)
    except (ValueError, TypeError, AttributeError, AssertionError, RecursionError):
        return  # no call: by coverage, any bytes are tried
    api = _api()
    reply = api.loop.run_until_complete(api.call(method, path, content))
    assert reply.status_code < 500, (reply.status_code, reply.text)
    if reply.status_code >= 400 and method != "HEAD":
        assert set(reply.json()["error"]) == {"message", "type", "param", "code"}
    cluster = api.effective.cluster
    assert not validation.problems(cluster)
    build_generation(gateway_files(cluster, ApiKeys(), CONTAINER_PATHS))


def _query(name: str, kind: str) -> bytes:
    return dns.message.make_query(name, kind).to_wire()


DOMAIN = "manyeyes.internal"
QUERIES = [
    _query(f"_http._tcp.big.pool.{DOMAIN}", "SRV"),
    _query(f"big.pool.{DOMAIN}", "A"),
    _query(f"e-0.engine.{DOMAIN}", "ANY"),
]
SEEDS: dict[str, list[bytes]] = {
    "config": _config_sources(),
    "datagrams": [LINE, LINE.replace(b"200", b"502"), b"{}", b"<190>nginx: {"],
    "registry": [json.dumps(["POST", path, json.dumps(body)]).encode() for path in PATHS[:6] for body in BODIES],
    "dns": QUERIES,
    "answers": [METRICS, b'{"server_load":3}', b'{"data":[{"id":"m"}]}', b'{"choices":[{"finish_reason":"stop"}]}', b"[" * 500],
    "addresses": [b"10.0.0.1", b"10.1", b"0x7f000001", b"api.example.com:8000", b"https://api..example.com/v1", b"http://[::1]:80/", b"xn--nxasmq6b.example"],
    "state": [
        b"{e-0: why}", b"boot: x\nengines: {e-0: {at: 'big 10.0.0.1:9000', state: up, address: 10.0.0.1, accepts: [m]}}",
        b"{wanted: {big: 1}, fixed: {}, going: [e-0], resting: []}", b"{e-0: 2}", b"{name: new, pool: big, address: 'h:1'}",
        b"{name: new, model: m2, aliases: [x]}", b"upstreams: {big: big}\nformer: {}\n",
    ],
}  # fmt: skip
"""Right inputs, from which others are made."""
TEXTS = st.text(max_size=80).map(lambda text: text.encode("utf-8", "surrogatepass"))
TARGETS = {
    "config": Target(st.one_of(edited(SEEDS["config"]), _trees()), check_config),
    "datagrams": Target(edited(SEEDS["datagrams"]), check_datagram),
    "registry": Target(calls(), check_registry),
    "dns": Target(st.one_of(edited(SEEDS["dns"]), st.binary(max_size=600)), check_dns),
    "answers": Target(edited(SEEDS["answers"]), check_answer),
    "addresses": Target(st.one_of(edited(SEEDS["addresses"]), TEXTS), check_host),
    "state": Target(edited(SEEDS["state"]), check_state),
}
