"""What comes from cluster.yaml, the keys file or the API into nginx's files: accepted by the real nginx, or refused by name before."""

import hashlib
import json
import random
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from manyeyes.config.credentials import ApiKey, ApiKeys, KeysError, parse_keys
from manyeyes.config.loader import ConfigError, parse
from manyeyes.config.placement import Inventory, PlacedCluster, place_engines
from manyeyes.controller.registry.schemas import NewPool
from manyeyes.devcluster.cluster import ROOT, modules_folder, nginx_binary, own_user
from manyeyes.render.nginx.files import build_generation, gateway_files
from manyeyes.render.nginx.naming import CONTAINER_PATHS, NginxPaths
from manyeyes.render.nginx.pools import as_map, quoted
from tests.placed import placed

HOSTILE = [
    'x" "";}server{listen 8099;location /{autoindex on;}}map $uri $zz{"',
    "a;",
    "a{b",
    "a}b",
    "$request_uri",
    "${host}",
    "a\\",
    "\\a",
    'a"b',
    "a'b",
    "a\nb",
    "a\n",
    "\r\n",
    "\t",
    " a",
    "a b",
    "#a",
    "~.*",
    "~*.*",
    "~^(?<a>.*)$",
    "\x00",
    "\x1f",
    "\x7f",
    "é",
    "漢",
    "\u2028",
    "",
]
ODD_NAMES = ["default", "hostnames", "include", "volatile", "Default", "constructor", "__proto__", "0", "a" * 200]


def random_texts(count: int) -> list[str]:
    chance = random.Random(20261130)
    letters = "ab1.-_/:@+~*$\\\"';{}()[]#% \n\r\t\0é"
    return ["".join(chance.choice(letters) for _ in range(chance.randrange(1, 9))) for _ in range(count)]


class Judge:
    """nginx -t on the project's own files with rendered ones beside them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.copytree(ROOT / "nginx", folder, dirs_exist_ok=True)
        (folder / "tmp").mkdir()
        (folder / "secrets").mkdir()
        swaps = [
            ("/tmp/", f"{folder}/tmp/"),
            ("/usr/lib/nginx/modules/", f"{modules_folder()}/"),
            ("listen 8079", "listen 127.0.0.1:0"),
            ("listen 8088", "listen 127.0.0.1:0"),
            ("/dev/stdout", f"{folder}/access.log"),
        ]
        for file in (*folder.rglob("*.conf"), *folder.rglob("*.inc")):
            text = file.read_text()
            for before, after in swaps:
                text = text.replace(before, after)
            file.write_text(text)

    def says(self, cluster: PlacedCluster, keys: ApiKeys = ApiKeys()) -> str:  # noqa: B008
        """Empty when nginx accepts what is rendered for the cluster, without a warning."""
        # A port of 0 is none to nginx, so nothing here can be taken by somebody else.
        places = NginxPaths(
            controller="127.0.0.1", listen=f"unix:{self.folder}/tmp/listen", outside_resolver="127.0.0.1"
        )
        rendered = self.folder / "rendered"
        shutil.rmtree(rendered, ignore_errors=True)
        rendered.mkdir()
        for name, text in build_generation(gateway_files(cluster, keys, places))[1].items():
            (rendered / name).write_text(text)
        command = [nginx_binary(), "-t", "-q", "-p", f"{self.folder}/", "-c", "nginx.conf", "-g", own_user()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        return done.stderr


@pytest.fixture(scope="module")
def nginx(tmp_path_factory: pytest.TempPathFactory) -> Judge:
    folder = tmp_path_factory.mktemp("judge")
    judge = Judge(folder)
    for file in ("internal.conf", "gateway.conf"):
        path = folder / "conf.d" / file
        number = iter(range(9))
        lines = [
            f"    listen unix:{folder}/tmp/{file}{next(number)};" if "listen 127.0.0.1:0" in line else line
            for line in path.read_text().splitlines()
        ]
        path.write_text("\n".join(lines) + "\n")
    return judge


def document(**pool: Any) -> dict[str, Any]:
    return {
        "pools": [{"name": "big", "model": "org/Big-VL"}, {"name": "odd", "model": "org/Odd", **pool}],
        "engines": [
            {"name": "big-0", "pool": "big", "address": "127.0.0.1:1"},
            *([] if "remote" in pool else [{"name": "odd-0", "pool": "odd", "address": "127.0.0.1:2"}]),
        ],
    }


def laid_out(described: dict[str, Any]) -> PlacedCluster:
    return place_engines(parse(yaml.safe_dump(described)), Inventory(flavour="emulated"))


def with_setting(section: str, **values: Any) -> dict[str, Any]:
    return {**document(), section: values}


PLACES: dict[str, Callable[[Any], dict[str, Any]]] = {
    "pools[].name": lambda text: {"pools": [{"name": text, "model": "m"}], "engines": []},
    "pools[].model": lambda text: document(model=text),
    "pools[].model of a remote": lambda text: document(model=text, remote={"url": "https://api.example.com/v1"}),
    "pools[].aliases": lambda text: document(aliases=[text]),
    "pools[].remote.url": lambda text: document(remote={"url": text}),
    "a remote's host": lambda text: document(remote={"url": f"https://{text}/v1"}),
    "a remote's path": lambda text: document(remote={"url": f"https://api.example.com/{text}"}),
    "a remote's port": lambda text: document(remote={"url": f"https://api.example.com:{text}/v1"}),
    "pools[].remote.key_file": lambda text: document(remote={"url": "https://api.example.com/v1", "key_file": text}),
    "pools[].media.allowed_domains": lambda text: document(media={"allowed_domains": [text]}),
    "network.domain": lambda text: with_setting("network", domain=text),
    "webui.title": lambda text: with_setting("webui", title=text),
    "tracing.endpoint": lambda text: with_setting("tracing", enabled=True, endpoint=text),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_text_that_nginx_could_misread_is_refused_by_name_or_means_itself(nginx: Judge, place: str) -> None:
    taken = []
    for text in [*HOSTILE, *ODD_NAMES, *random_texts(150)]:
        try:
            described = laid_out(PLACES[place](text))
        except ConfigError:
            continue
        taken.append(text)
        if len(taken) <= 20 or text in HOSTILE:
            assert nginx.says(described) == "", text
    if place not in ("webui.title", "pools[].media.allowed_domains"):
        structural = set('"\\;{}$\n\r\0')
        assert not [text for text in taken if structural & set(text) and not text.startswith("/")], taken


@pytest.mark.parametrize("place", PLACES)
def test_any_text_at_all_is_refused_or_nginx_accepts_what_is_rendered(nginx: Judge, place: str) -> None:
    judged: set[str] = set()

    @settings(max_examples=200, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(st.one_of(st.text(max_size=12), st.from_regex(r"[a-z][-a-z0-9.$;{}\"'\\\\ ]{0,8}", fullmatch=True)))
    def run(text: str) -> None:
        try:
            described = laid_out(PLACES[place](text))
        except ConfigError:
            return
        name, _ = build_generation(gateway_files(described, ApiKeys(), CONTAINER_PATHS))
        if name not in judged and len(judged) < 40:
            judged.add(name)
            assert nginx.says(described) == "", text

    run()


@pytest.mark.parametrize("name", ["default", "hostnames", "include", "volatile", "constructor", "Default", "a" * 128])
def test_a_model_may_be_called_as_one_of_nginxs_own_words(nginx: Judge, name: str) -> None:
    assert nginx.says(laid_out(document(aliases=[name]))) == ""


@pytest.mark.parametrize("text", [one for one in HOSTILE if "$" not in one and one.isprintable()])
def test_a_map_takes_every_text_as_itself_and_never_as_a_pattern(tmp_path: Path, text: str) -> None:
    conf = tmp_path / "nginx.conf"
    temporary = "".join(
        f"{name}_temp_path {tmp_path}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    conf.write_text(
        f"pid {tmp_path}/pid; error_log stderr; {own_user()} events {{}} http {{ {temporary}\n"
        "map_hash_bucket_size 256;\n" + as_map("$uri", "$found", {text: text}) + "}\n"
    )
    done = subprocess.run(
        [nginx_binary(), "-T", "-p", tmp_path, "-c", conf], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    key = as_map("$uri", "$found", {text: "v"}).splitlines()[2].strip()
    assert not key.startswith(('"~', '"default"')), key


@pytest.mark.parametrize("text", ["$uri", "a$", "${a}", "a\nb", "\0", "\x7f"])
def test_what_nginx_has_no_way_to_write_is_never_written(text: str) -> None:
    with pytest.raises(ValueError, match="nginx cannot represent"):
        quoted(text)


NUMBERS = [0, 0.004, 0.005, 0.01, 0.5, 1, 2, 99.99, 99.996, 100, 3600, 65_535, 65_536, 10**6, 10**9, 10**12, 10**19]
NUMERIC: dict[str, Callable[[Any], dict[str, Any]]] = {
    "pools[].max_in_flight": lambda value: document(max_in_flight=value),
    "pools[].max_num_seqs": lambda value: document(max_num_seqs=value),
    "pools[].cache.ttl_s": lambda value: document(cache={"ttl_s": value}),
    "pools[].cache.max_mb": lambda value: document(cache={"max_mb": value}),
    "gateway.max_body_mb": lambda value: with_setting("gateway", max_body_mb=value),
    "gateway.connect_timeout_s": lambda value: with_setting("gateway", connect_timeout_s=value),
    "gateway.read_timeout_s": lambda value: with_setting("gateway", read_timeout_s=value),
    "gateway.total_timeout_s": lambda value: with_setting("gateway", total_timeout_s=value),
    "gateway.retry_after_s": lambda value: with_setting("gateway", retry_after_s=value),
    "gateway.conversation_timeout_s": lambda value: with_setting("gateway", conversation_timeout_s=value),
    "gateway.workers": lambda value: with_setting("gateway", workers=value),
    "controller.dns_ttl_s": lambda value: with_setting("controller", dns_ttl_s=value),
    "tracing.sampled_percent": lambda value: with_setting("tracing", enabled=True, sampled_percent=value),
}


@pytest.mark.parametrize("place", NUMERIC)
def test_a_number_that_validation_takes_nginx_takes_too(nginx: Judge, place: str) -> None:
    taken = 0
    for value in NUMBERS:
        try:
            described = laid_out(NUMERIC[place](value))
        except ConfigError:
            continue
        taken += 1
        assert nginx.says(described) == "", value
    assert taken


def key(name: str, **limits: int) -> dict[str, Any]:
    return {"name": name, "sha256": hashlib.sha256(name.encode()).hexdigest(), **limits}


def test_a_keys_name_that_nginx_could_misread_is_refused_or_means_itself(nginx: Judge) -> None:
    taken = []
    for text in [*HOSTILE, *ODD_NAMES, *random_texts(300)]:
        try:
            keys = parse_keys(json.dumps({"keys": [key(text, in_flight=3, requests_per_minute=7)]}), Path("keys.yaml"))
        except KeysError:
            continue
        taken.append(text)
        assert nginx.says(laid_out(document()), keys) == "", text
    assert "default" in taken


def test_two_keys_that_differ_in_case_only_are_refused_and_both_are_named() -> None:
    with pytest.raises(KeysError, match=r"keys\[Alice\] and keys\[alice\] differ only in case"):
        parse_keys(json.dumps({"keys": [key("Alice"), key("bob"), key("alice")]}), Path("keys.yaml"))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"name": "qwen"}, {"name": "b", "aliases": ["Qwen"]}),
        ({"name": "a", "aliases": ["Large"]}, {"name": "b", "aliases": ["large"]}),
        ({"name": "a", "model": "Org/M"}, {"name": "b", "model": "org/m"}),
        ({"name": "a", "model": "Org/M"}, {"name": "b", "aliases": ["org/m"]}),
    ],
)
def test_names_of_two_pools_that_differ_in_case_only_are_refused_and_both_are_named(
    one: dict[str, Any], other: dict[str, Any]
) -> None:
    pools = [{"model": "org/A", **one}, {"model": "org/B", **other}]
    with pytest.raises(ConfigError, match="differ only in case") as caught:
        placed(yaml.safe_dump({"pools": pools}))
    assert all(f"pools[{pool['name']}]" in str(caught.value) for pool in pools)


def test_an_alias_may_be_the_pools_own_name_in_another_case(nginx: Judge) -> None:
    described = laid_out(document(aliases=["Odd", "ODD", "Org/odd"]))
    assert nginx.says(described) == ""


def test_keys_that_validation_takes_nginx_takes_with_their_limits(nginx: Judge) -> None:
    keys = ApiKeys(
        keys=tuple(
            ApiKey(**key(f"k{n}", requests_per_minute=most, in_flight=most)) for n, most in enumerate((1, 65_535))
        )
    )
    assert nginx.says(laid_out(document()), keys) == ""


@pytest.mark.parametrize("text", [one for one in HOSTILE if one])
def test_the_api_refuses_a_model_that_nginx_could_misread(text: str) -> None:
    with pytest.raises(ValidationError, match="model"):
        NewPool.model_validate({"name": "odd", "model": text, "remote": {"url": "https://api.example.com/v1"}})


@pytest.mark.parametrize("text", ['x";', "a b", "~.*", "a$b", "a\nb"])
def test_a_problem_with_a_model_is_one_plain_sentence(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        laid_out(document(model=text))
    assert [problem.split(", got")[0] for problem in caught.value.problems] == [
        "pools[odd].model: expected a model id of 1 to 200 letters, digits and . _ / : @ + -, or an absolute path"
    ]
