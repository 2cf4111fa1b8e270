"""Keys and gateway settings as nginx reads them."""

import hashlib

import pytest

from manyeyes.config.credentials import ApiKey, ApiKeys
from manyeyes.config.placement import PlacedCluster
from manyeyes.render.nginx.files import keys_conf, limits_conf, listen_conf, settings_conf, workers_conf
from manyeyes.render.nginx.naming import CONTAINER_PATHS
from tests.placed import placed


def cluster(gateway: str = "{}") -> PlacedCluster:
    return placed(f"pools: [{{name: a, model: org/A}}]\ngateway: {gateway}\n")


def key(name: str, **limits: int) -> ApiKey:
    return ApiKey(name=name, sha256=hashlib.sha256(name.encode()).hexdigest(), **limits)


@pytest.mark.parametrize(
    ("gateway", "keys", "anonymous"),
    [
        ("{}", ApiKeys(), "1"),
        ("{}", ApiKeys(keys=(key("alice"),)), "0"),
        ("{anonymous: true}", ApiKeys(keys=(key("alice"),)), "1"),
        ("{anonymous: false}", ApiKeys(), "0"),
        ("{host: 127.0.0.2}", ApiKeys(), "1"),
        ("{host: 0.0.0.0}", ApiKeys(), "0"),
        ("{host: 192.168.1.5, tls: {}}", ApiKeys(), "0"),
        ("{host: 0.0.0.0}", ApiKeys(keys=(key("alice"),)), "0"),
        ("{host: 0.0.0.0, anonymous: true}", ApiKeys(), "1"),
    ],
)
def test_strangers_are_let_in_on_this_host_while_there_are_no_keys_or_where_the_operator_says_so(
    gateway: str, keys: ApiKeys, anonymous: str
) -> None:
    assert f'map "" $manyeyes_anonymous {{ default "{anonymous}"; }}' in keys_conf(cluster(gateway), keys)


def test_a_key_is_known_by_its_hash_and_to_the_page_by_its_name() -> None:
    alice = key("alice")
    text = keys_conf(cluster(), ApiKeys(keys=(alice,)))
    assert f'"{alice.sha256}" "alice";' in text
    assert '"name:alice" "alice";' in text


def test_keys_of_one_limit_share_a_zone_and_those_without_are_in_none() -> None:
    keys = ApiKeys(
        keys=(
            key("alice", requests_per_minute=60),
            key("bob", requests_per_minute=60, in_flight=4),
            key("carol", requests_per_minute=5),
            key("dave"),
        )
    )
    assert limits_conf(cluster(), ApiKeys()).splitlines()[1:] == ["limit_conn clients 4096;"]
    text = keys_conf(cluster(), keys)
    assert text.count("limit_req_zone ") == 2
    assert "limit_req_zone $manyeyes_rate_60 zone=rate-60:1m rate=60r/m;" in text
    assert "limit_conn_zone $manyeyes_in_flight_4 zone=in-flight-4:1m;" in text
    rates = text.split("map $manyeyes_key $manyeyes_rate_60 {")[1].split("}")[0]
    assert '"alice" "alice";' in rates
    assert '"bob" "bob";' in rates
    assert "carol" not in rates
    assert "dave" not in rates
    assert limits_conf(cluster("{max_client_requests: 5}"), keys).splitlines()[1:] == [
        "limit_conn clients 5;",
        "limit_req zone=rate-60 burst=60 nodelay;",
        "limit_req zone=rate-5 burst=5 nodelay;",
        "limit_conn in-flight-4 4;",
    ]


def test_a_host_named_as_one_of_nginxs_own_words_is_a_host() -> None:
    text = keys_conf(cluster("{}\nwebui: {host_names: [default, include, eyes.example.com]}"), ApiKeys())
    for name in ('"\\default"', '"\\include"', '"eyes.example.com"'):
        assert f'{name} "1";' in text


def test_a_key_named_as_one_of_nginxs_own_words_is_a_key() -> None:
    text = keys_conf(cluster(), ApiKeys(keys=(key("default", in_flight=1),)))
    assert '"\\default" "default";' in text


def test_https_is_spoken_where_there_is_a_tls_section_with_files_of_the_secrets_folder() -> None:
    assert "listen 8080 reuseport;" in listen_conf(cluster(), CONTAINER_PATHS)
    text = listen_conf(cluster("{tls: {certificate: eyes.pem}}"), CONTAINER_PATHS)
    assert "listen 8080 ssl reuseport;" in text
    assert "ssl_certificate /run/secrets/manyeyes/eyes.pem;" in text
    assert "ssl_certificate_key /run/secrets/manyeyes/tls.key;" in text


def test_limits_of_size_and_time_are_the_configurations() -> None:
    text = settings_conf(cluster("{max_body_mb: 7, connect_timeout_s: 0.5, read_timeout_s: 30, tries: 3}"))
    assert "client_max_body_size 7m;" in text
    assert "proxy_connect_timeout 500ms;" in text
    assert "proxy_read_timeout 30s;" in text
    assert "proxy_next_upstream_tries 3;" in text


@pytest.mark.parametrize(("engines", "workers"), [(0, 2), (1, 2), (5, 2), (8, 2), (9, 3), (16, 4)])
def test_nginx_has_two_processes_and_more_from_nine_engines_on(engines: int, workers: int) -> None:
    started = [f"{{name: e-{n}, pool: a, flavour: emulated}}" for n in range(engines)]
    elsewhere = [f"{{name: f-{n}, pool: a, address: '10.0.0.{n + 1}:8000'}}" for n in range(9)]
    written = ", ".join(started + elsewhere)  # those come and go without a reload
    one = placed(f"pools: [{{name: a, model: org/A}}]\nengines: [{written}]\nflavour: emulated\n")
    assert f"worker_processes {workers};" in workers_conf(one)
    assert "worker_processes 12;" in workers_conf(cluster("{workers: 12}")), "where the operator says so"
