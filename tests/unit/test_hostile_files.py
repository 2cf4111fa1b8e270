"""Whatever stands in an operator's file, its parser returns or raises its own error, with a sentence that names the file."""

import copy
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from manyeyes.config import documents
from manyeyes.config.credentials import KeysError, UsersError, load_keys, load_users, parse_keys, parse_users
from manyeyes.config.documents import DocumentError
from manyeyes.config.loader import ConfigError, load, parse
from tests.placed import placed

ROOT = Path(__file__).resolve().parents[2]
BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{after}: &{after} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, after in zip("abcdefgh", "bcdefghi", strict=True)
)
MERGES = "a: &a {k0: v}\n" + "".join(
    f"{after}: &{after} {{<<: [{', '.join([f'*{before}'] * 9)}]}}\n"
    for before, after in zip("abcdefgh", "bcdefghi", strict=True)
)
ODD = (
    *("", "\n", "null", "[]", "{}", "0", "false", "''", "text", "- a", "- {a: b}", "---\n---\n", "--- a\n--- b\n", "%YAML 9.9\n---\na: b"),
    *("{{ title }}: x", "webui: {title: {{ title }}}", "? [a, b]\n: c", "? {a: b}\n: c", "? !!set {a, b}\n: c", "!!set {a, b}", "!!omap [a: b]"),
    *("pools: !!set {a, b}", "pools: !!omap [name: a]", "keys: !!set {a}", "users: !!set {a}", "keys: !!pairs [a: b]", "pools: !!binary aGVsbG8="),
    *("webui: {title: 2024-13-45}", "2024-13-45: x", "keys: 2024-02-30", "users: 2024-02-30", "pools: 2024-01-01", "name: 2024-01-01 99:99:99"),
    *("name: !!bool maybe", "name: !!int ''", "name: !!float x", "name: !!timestamp soon", "name: !!binary '*'", "name: !!python/object:os.system x"),
    *("pools: !!seq {a: b}", "pools: !!map [a]", "!!int x: y", "!!timestamp x: y", "!!seq x: y", "name: !nope x", "name: !<tag:x> y"),
    *(f"name: {'9' * 5000}", f"name: 0x{'f' * 5000}", f"name: 0b{'1' * 9000}", "name: 1:59:59:59:59", f"cpu_engines: {'9' * 400}", "name: 1e400"),
    *(f"{'9' * 5000}: x", "cpu_engines: .nan", "cpu_engines: .inf", "adapter: {connect_timeout_s: .nan}", "shutdown: {grace_s: .inf}"),
    *("a: \0", 'name: "\\0"', 'name: "\\ud800"', '"\\udfff": x', "a: \x1b", "a:\tb", "\ufeffa: b", "\ufffe", "a: \u2028", "name: 😀"),
    *("[" * 5000, "{a: " * 5000, "- " * 5000, "a:\n" + "".join(" " * n + "a:\n" for n in range(400)), "[" * 90 + "]" * 90, "&a [*a]", "a: &a {b: *a}"),
    *(BOMB, MERGES, BOMB + "pools: *i", BOMB + "keys: *i", BOMB + "users: *i", MERGES + "pools: [*i]", "<<: x", "<<: [x]", "a: &a {<<: *a}", "a: *b"),
    *("pools: [" + "0, " * 1_500 + "]", "keys: [" + "0, " * 1_500 + "]", "users: [" + "{}, " * 1_500 + "]", "engines: [" + "{name: 1}, " * 1_500 + "]"),
    *("1: x", "null: x", "true: x", "1.5: x", "? x", "keys: {1: 2}", "keys: [1]", "keys: [{1: 2}]", "keys: [[1]]", "users: [{name: [1]}]", "[[keys]]"),
    *(f"network: {{subnet: 10.0.0.0/{size}}}" for size in (0, 8, 24, 27, 28, 30, 31, 32, 33, -1)),
    *("network: {subnet: '::/0'}", "network: {subnet: 1}", "network: {controller_ip: 1}", "network: {subnet: 10.0.0.1/24}", "network: {domain: a..b}"),
    *("network: {subnet: !!binary AQIDBA==}", "gateway: {host: 'fe80::1%eth0'}", "gateway: {host: 010.0.0.7}", "gateway: {host: 1}", "gateway: {port: 1e400}"),
)  # fmt: skip
RIGHT = "pools: [{name: a, model: m}]\nengines: [{name: e, pool: a, flavour: emulated}]\n"
PARSERS: list[tuple[Callable[[str, Path], Any], type[Exception], str]] = [
    (parse, ConfigError, "cluster.yaml"),
    (parse_keys, KeysError, "api-keys.yaml"),
    (parse_users, UsersError, "users.yaml"),
]


def tried(text: str) -> None:
    for parser, error, name in PARSERS:
        said = ""
        try:
            parser(text, Path(name))
        except error as found:
            said = str(found)
        assert "bug in ManyEyes" not in said, (text[:200], said)
        assert not said or said.startswith(f"{name}: "), (text[:200], said)


@pytest.mark.parametrize("text", ODD, ids=[f"{number}" for number in range(len(ODD))])
def test_an_odd_text_is_taken_or_refused_and_nothing_else(text: str) -> None:
    tried(text)
    tried(RIGHT + text)


def test_texts_with_random_faults_are_taken_or_refused_and_nothing_else() -> None:
    chance = random.Random(20261130)
    sources = [path.read_text() for path in sorted((ROOT / "config/examples").glob("*.yaml"))]
    sources += ["keys:\n- {name: a, sha256: " + "0" * 64 + "}\n", "users:\n- {name: a, password: scrypt}\n", RIGHT]
    pieces = ["{{ a }}", "[", "]", "{", "}", ": ", "- ", "\n", "\t", "&a ", "*a", "<<: ", "!!set ", "!!int ", "? ", "'", '"', "#", "|", ">", "%",
              "\0", "\x85", "\ud7ff", "\ufeff", "2024-13-45", "0x", ".nan", ".inf", "1e999", "9" * 30, "null", "~", "yes", "---\n", "  "]  # fmt: skip
    for _ in range(250):
        text = chance.choice(sources)
        for _ in range(chance.randint(1, 4)):
            at = chance.randrange(len(text) + 1)
            text = text[:at] + chance.choice(pieces) + text[at + chance.choice([0, 0, 1, 5, 40]) :]
        tried(text[:3000])


VALUES: list[Any] = [
    None, True, 0, -1, 1, 2**62, 10**30, 1.5, -0.0, float("inf"), float("nan"), "", " ", "x" * 300, "a b", "10.1", "..", "a\nb", "\0", "{x}", [], {},
    [[]], [None], [{}], {"a": 1}, {"": ""}, {1: 2}, "auto", "tiny", "http://a..b", "http://[::1]:1", "x:99999", "x:0", "🦊", ["a"] * 20,
]  # fmt: skip


def places(value: Any, way: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [way]
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            found += places(value[key], (*way, key))
    return found


def replaced(document: Any, way: tuple[Any, ...], value: Any) -> Any:
    if not way:
        return value
    changed = copy.copy(document)
    changed[way[0]] = replaced(document[way[0]], way[1:], value)
    return changed


def test_trees_with_random_values_are_taken_or_refused_and_nothing_else() -> None:
    chance = random.Random(11)
    whole = placed((ROOT / "config/examples/three-4090.yaml").read_text()).model_dump(mode="json")
    sources = [whole, *(yaml.safe_load(path.read_text()) for path in sorted((ROOT / "config/examples").glob("*.yaml")))]
    for number in range(250):
        document = chance.choice(sources)
        for _ in range(1 + number % 3):
            ways = places(document)
            document = replaced(document, chance.choice(ways[1:] or ways), chance.choice(VALUES))
        tried(yaml.safe_dump(document, allow_unicode=True))


@pytest.mark.parametrize(("reader", "error"), [(load, ConfigError), (load_keys, KeysError), (load_users, UsersError)])
def test_what_is_no_text_file_is_refused_by_its_name(
    tmp_path: Path, reader: Callable[[Path], Any], error: type[Exception]
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "binary").write_bytes(b"a: \xff\xfe")
    (tmp_path / "huge").write_bytes(b"#" * (documents.MAX_BYTES + 1))
    (tmp_path / "loop").symlink_to("loop")
    for name, why in (
        ("folder", "is a folder"),
        ("binary", "is not UTF-8"),
        ("huge", "is larger than"),
        ("loop", "cannot be read"),
    ):
        with pytest.raises(error, match=f"{name}: .*{why}"):
            reader(tmp_path / name)
    with pytest.raises(error, match="not a regular file"):
        reader(Path("/dev/zero"))


def test_a_small_text_of_aliases_that_stands_for_billions_of_values_is_refused_by_its_place() -> None:
    for text in (BOMB, MERGES):
        with pytest.raises(
            DocumentError, match=r"line \d+, column \d+: more than 100000 values, with aliases expanded"
        ):
            documents.parse(text)


def test_anchors_and_merges_of_an_ordinary_size_are_taken() -> None:
    text = "x: &x {model: m, media: &m {images_per_prompt: 1}}\npools: [{<<: *x, name: a}, {<<: *x, name: b, media: {<<: *m, video_frames: 4}}]"
    assert documents.parse(text)["pools"][1] == {
        "model": "m", "media": {"images_per_prompt": 1, "video_frames": 4}, "name": "b",
    }  # fmt: skip


def test_a_placeholder_that_was_not_filled_in_is_told_with_its_line() -> None:
    with pytest.raises(
        ConfigError,
        match=r"cluster.yaml: line 3, column \d+: a mapping or a list cannot be a key; put text such as \{\{ name \}\}",
    ):
        placed(RIGHT + "webui: {title: {{ title }}}")
    with pytest.raises(ConfigError, match=r"line 3, column 16: '2024-13-45' is not a valid !!timestamp"):
        placed(RIGHT + "webui: {title: 2024-13-45}")


@pytest.mark.parametrize("text", ["[]", "0", "false", "''"])
def test_a_keys_file_that_holds_something_else_does_not_let_everybody_in(text: str) -> None:
    with pytest.raises(KeysError):
        parse_keys(text, Path("api-keys.yaml"))


ODD_HOSTS = [
    *("10.1", "010.0.0.7", "0x7f000001", "127.1", "1", "0x7f.1", "256.0.0.1", "1.2.3.4.5", "a..b", ".a", "a-", "x" * 64, ".".join(["x" * 60] * 5), "١٢٧.0.0.1"),
    *("\uff11\uff12\uff17.0.0.1", "fe80::1%eth0", "a\0b", "a b", "ünï.example.com", "-a", "a.1", "a.0x1"),
]  # fmt: skip


@pytest.mark.parametrize("host", ODD_HOSTS)
def test_an_odd_host_is_refused_wherever_one_is_written(host: str) -> None:
    texts = [
        f"pools: [{{name: a, model: m}}]\nengines: [{{name: e, pool: a, flavour: emulated, address: {host!r}:8000}}]",
        {"pools": [{"name": "a", "model": "m", "remote": {"url": f"https://{host}/v1"}}]},
        {"pools": [{"name": "a", "model": "m", "media": {"allowed_domains": [host]}}]},
        {"pools": [{"name": "a", "model": "m"}], "controller": {"gpu_metrics_url": f"http://{host}:9400/metrics"}},
        {"pools": [{"name": "a", "model": "m"}], "tracing": {"enabled": True, "endpoint": f"http://{host}:4318"}},
        {
            "pools": [{"name": "a", "model": "m"}],
            "monitoring": {"alerting": {"webhooks": [{"url": f"http://{host}/x"}]}},
        },
        {
            "pools": [{"name": "a", "model": "m"}],
            "monitoring": {"alerting": {"emails": [{"to": "a@b", "sender": "a@b", "server": f"{host}:25"}]}},
        },
    ]
    for text in texts:
        with pytest.raises(ConfigError):
            placed(text if isinstance(text, str) else yaml.safe_dump(text, allow_unicode=True))


@pytest.mark.parametrize("port", ["0", "65536", "99999", "00000"])
def test_a_port_that_is_none_is_refused_wherever_one_is_written(port: str) -> None:
    pool = "{name: a, model: m}"
    for text in (
        f"pools: [{pool}]\nengines: [{{name: e, pool: a, flavour: emulated, address: 'h:{port}'}}]",
        f"pools: [{{name: a, model: m, remote: {{url: 'https://h:{port}/v1'}}}}]",
        f"pools: [{pool}]\ncontroller: {{gpu_metrics_url: 'http://h:{port}/metrics'}}",
    ):
        with pytest.raises(ConfigError, match=r"port|'0'"):
            placed(text)


@pytest.mark.parametrize(
    "host",
    [
        "10.0.0.7",
        "gpu-7",
        "gpu_7x",
        "a.b.example.com",
        "A.example",
        "1a",
        "x" * 63,
        "xn--nxasmq6b.example",
        "3com.example",
    ],
)
def test_ordinary_hosts_are_taken(host: str) -> None:
    address = (
        f"pools: [{{name: a, model: m}}]\nengines: [{{name: e, pool: a, flavour: emulated, address: '{host}:8000'}}]"
    )
    if "_" not in host:
        assert placed(address).engines[0].host == host
    domains = yaml.safe_dump({"pools": [{"name": "a", "model": "m", "media": {"allowed_domains": [host]}}]})
    assert placed(domains).pools[0].media.allowed_domains == (host,)
