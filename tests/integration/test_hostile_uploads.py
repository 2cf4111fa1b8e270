"""The running controller among files, datagrams and queries that nobody should write: it lives, answers DNS, and its members stay."""

import random
import shutil
import socket
import struct
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import dns.message
import pytest

from manyeyes.config.loader import config_fingerprint
from manyeyes.devcluster.cluster import LocalCluster, local_cluster
from manyeyes.devcluster.eventually import eventually
from tests.integration.membership import asked, controller, rotation, states

BOTH = {"big-0", "big-1"}
TEXTS = [
    "webui: {title: {{ title }}}",
    "webui: {title: 2024-13-45}",
    "name: !!bool maybe",
    "network: {subnet: 10.0.0.0/31}",
    "network: {domain: a..b}",
    "? [a]\n: b",
    "a: &a [*a]",
    "[" * 3000,
    f"cpu_engines: 0x{'f' * 5000}",
    'name: "\\ud800"',
    "shutdown: {grace_s: .inf}",
    "x: \0",
]
DOCUMENTS: list[bytes] = [b"\xff\xfe\0", b"[" * 3000, b"- a", b"a: 2024-13-45", b"{{ a }}: b", b"a: &a [*a]"]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    document = {
        "pools": [{"name": "big", "model": "org/Big-VL"}],
        "engines": [{"name": name, "pool": "big"} for name in sorted(BOTH)],
        "controller": {"probe_interval_s": 0.5, "config_poll_interval_s": 0.1, "register_loopback": True},
    }
    with local_cluster(tmp_path_factory.mktemp("local_cluster"), document) as running:
        eventually(lambda: rotation(running) == BOTH and (running.folder / "state/members.yaml").exists(), 60)
        eventually(lambda: (running.folder / "state/members.yaml").read_text().count("state: up") == 2, 20)
        yield running
        assert running.processes["controller"].poll() is None


def lives_on(running: LocalCluster) -> None:
    assert running.processes["controller"].poll() is None
    assert rotation(running) == BOTH
    assert controller(running, "/live").status_code == 200


def replaced(path: Path, content: str | bytes | None) -> None:
    """None: a folder stands there."""
    if path.is_dir():
        shutil.rmtree(path)
    if content is None:
        path.unlink()
        path.mkdir()
        return
    fresh = path.with_name(f"{path.name}.new")
    fresh.write_bytes(content if isinstance(content, bytes) else content.encode())
    fresh.replace(path)


def refused(running: LocalCluster, of: str = "") -> Callable[[], bool]:
    def check() -> bool:
        said = running.configuration()
        assert said["refused"], said
        assert not of or said["validated"] == of, said
        return True

    return check


def accepted(running: LocalCluster) -> bool:
    said = running.configuration()
    assert said
    assert not said["refused"], said
    return True


def test_a_hostile_cluster_yaml_is_refused_and_the_members_stay(cluster: LocalCluster) -> None:
    path = cluster.folder / "cluster.yaml"
    right = path.read_text()
    for text in TEXTS:
        replaced(path, right + text)
        eventually(refused(cluster, config_fingerprint(right + text, None)), 20, 0.05, f"{text[:40]!r} is refused")
        lives_on(cluster)
    for content in (b"\xff\xfe", None):
        replaced(path, content)
        eventually(lambda: "cluster.yaml: is " in str(cluster.configuration()["refused"]), 20, 0.05, "it is refused")
        lives_on(cluster)
    replaced(path, right)
    eventually(lambda: accepted(cluster), 20, 0.05, "the right file is taken again")


def test_a_hostile_keys_file_is_refused_and_nobody_is_let_in_or_shut_out(cluster: LocalCluster) -> None:
    path = cluster.folder / "api-keys.yaml"
    for content in (b"keys: 2024-02-30", b"keys: !!set {a}", b"{{ a }}: b", b"\xff", b"[]"):
        replaced(path, content)
        eventually(refused(cluster), 20, 0.05, f"{content!r} is refused")
        lives_on(cluster)
        path.unlink()
        eventually(lambda: accepted(cluster), 20, 0.05, "without the file all is well again")


def test_what_make_up_wrote_may_be_damaged_while_the_controller_runs(cluster: LocalCluster) -> None:
    for name in ("started.yaml", "compose.env"):
        path = cluster.folder / "rendered" / name
        before = path.read_bytes() if path.exists() else b""
        for content in (*DOCUMENTS, b"services: [a]", b"services: {a: {labels: {manyeyes.engine: a}, command: 3}}"):
            looks = told(cluster)
            replaced(path, content)
            if name == "started.yaml":
                eventually(partial(told_again, cluster, looks), 20, 0.05, f"{content[:40]!r} is told")
            lives_on(cluster)
        replaced(path, before)
    assert accepted(cluster)


def told(running: LocalCluster) -> int:
    return running.log("controller").count("compose_state_unreadable")


def told_again(running: LocalCluster, before: int) -> bool:
    return told(running) > before


def test_hostile_datagrams_and_queries_end_neither_receiver(cluster: LocalCluster) -> None:
    chance = random.Random(5)
    log = [
        b"",
        b"{",
        b"{" * 60_000,
        b'{"a":' * 8000,
        b'<190>{"status":200,"total_s":NaN}',
        b'{"status":1e400,"bytes_in":-1}',
        b"\xff" * 60_000,
    ]
    log += [b'{"status":"x","attempts":[1],"key":{}}', b'{"status":200,"attempt_status":"200","pool":["a"],"total_s":1,"header_s":"1","response_s":"1","bytes_in":1,"bytes_out":1}']  # fmt: skip
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        for datagram in log:
            client.sendto(datagram, ("127.0.0.1", cluster.ports["syslog"]))
        for _ in range(300):
            wire = bytearray(asked_wire())
            for _ in range(chance.randint(1, 6)):
                wire[chance.randrange(len(wire))] = chance.randrange(256)
            client.sendto(bytes(wire[: chance.randint(1, len(wire))]), ("127.0.0.1", cluster.ports["dns"]))
    for payload in (b"\0", b"\0\0", b"\xff\xff" + b"x" * 100, struct.pack("!H", 12) + b"\0" * 12):
        with socket.create_connection(("127.0.0.1", cluster.ports["dns"]), timeout=5) as tcp:
            tcp.sendall(payload)
    before = unreadable(cluster)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.sendto(b"{nonsense", ("127.0.0.1", cluster.ports["syslog"]))
    eventually(lambda: unreadable(cluster) > before, 20, 0.05, "the log's receiver still takes datagrams")
    lives_on(cluster)
    assert asked(cluster, tcp=True).answer
    assert not [line for line in controller(cluster, "/metrics").text.splitlines() if line.endswith((" NaN", "nan"))]


def asked_wire() -> bytes:
    return dns.message.make_query("_http._tcp.big.pool.manyeyes.internal", "SRV", use_edns=True).to_wire()


def unreadable(running: LocalCluster) -> float:
    lines = controller(running, "/metrics").text.splitlines()
    return sum(
        float(line.rpartition(" ")[2]) for line in lines if line.startswith("manyeyes_request_log_unreadable_total")
    )


def test_started_among_hostile_files_it_goes_on_with_what_was_in_force(cluster: LocalCluster) -> None:
    folder, state = cluster.folder, cluster.folder / "state"
    right = (folder / "cluster.yaml").read_text()
    inventory = (folder / "rendered/inventory.yaml").read_bytes()
    for number, text in enumerate(TEXTS[:1]):
        damage = DOCUMENTS[number]
        cluster.kill("controller")
        replaced(folder / "cluster.yaml", right + text)
        replaced(folder / "api-keys.yaml", b"keys: 2024-02-30")
        replaced(folder / "rendered/started.yaml", damage)
        replaced(folder / "rendered/inventory.yaml", damage)
        for name in ("scaling", "held", "weights", "adapter", "members"):
            replaced(state / f"{name}.yaml", DOCUMENTS[(number + 2) % len(DOCUMENTS)])
        for kind in ("engines", "pools"):
            (state / kind).mkdir(exist_ok=True)
            for each, content in enumerate(DOCUMENTS):
                (state / kind / f"odd-{each}.yaml").write_bytes(content)
        (state / "engines" / b"\xff.yaml".decode(errors="surrogateescape")).write_bytes(b"x")
        cluster.start_controller()
        eventually(lambda: rotation(cluster) == BOTH, 40, 0.05, "it answers DNS with all its members")
        assert set(states(cluster)) == BOTH
        assert cluster.configuration()["refused"]
        eventually(lambda: "state_set_aside" in cluster.log("controller"), 5)
    (folder / "api-keys.yaml").unlink()
    replaced(folder / "rendered/inventory.yaml", inventory)
    (folder / "rendered/started.yaml").unlink()
    replaced(folder / "cluster.yaml", right)
    eventually(lambda: accepted(cluster), 20, 0.05, "the right files are taken again")
    lives_on(cluster)
