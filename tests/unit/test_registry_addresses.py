"""Addresses at which nothing may be registered, in every way they can be written."""

import socket
from ipaddress import ip_address

import pytest

from manyeyes.config.gateway import Controller
from manyeyes.config.placement import PlacedCluster
from manyeyes.controller.config_sync.effective_config import EffectiveConfig
from manyeyes.controller.registry.registration_checks import RegistrationChecks
from manyeyes.controller.settings import ControllerSettings
from manyeyes.netpolicy import Address, deny_registration
from manyeyes.openai_error import ApiError
from tests.placed import placed


def forbidden(address: Address, rules: Controller) -> str:
    return deny_registration(address, rules.register_loopback, rules.register_private)


@pytest.mark.parametrize(
    "address",
    ["169.254.169.254", "169.254.0.1", "fe80::1", "fd00:ec2::254", "100.100.100.200", "168.63.129.16", "192.0.0.192",
     "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::1", "0.0.0.0", "::", "224.0.0.1", "255.255.255.255", "240.0.0.1", "ff02::1"],
)  # fmt: skip
def test_metadata_services_and_what_is_no_machine_are_refused_whatever_the_settings(address: str) -> None:
    assert forbidden(ip_address(address), Controller(register_private=True, register_loopback=True))


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.1"])
def test_loopback_is_refused_unless_it_is_allowed(address: str) -> None:
    assert forbidden(ip_address(address), Controller())
    assert not forbidden(ip_address(address), Controller(register_loopback=True))


@pytest.mark.parametrize(
    "address", ["10.0.0.7", "172.16.3.4", "192.168.1.1", "100.64.0.1", "fd12::1", "::ffff:10.0.0.7"]
)
def test_private_addresses_are_where_engines_live_unless_that_is_forbidden(address: str) -> None:
    assert not forbidden(ip_address(address), Controller())
    assert forbidden(ip_address(address), Controller(register_private=False))


@pytest.mark.parametrize("address", ["93.184.216.34", "2606:4700::1111"])
def test_public_addresses_are_allowed(address: str) -> None:
    assert not forbidden(ip_address(address), Controller(register_private=False))


def cluster(**controller: bool) -> PlacedCluster:
    written = placed(
        "pools: [{name: a, model: m}]\n"
        "engines: [{name: e, pool: a, address: 'h:1', flavour: emulated}, {name: cpu-0, pool: a, flavour: cpu}]"
    )
    return written.model_copy(update={"controller": Controller(**controller)})


OWN = ControllerSettings.model_construct(host="127.0.0.1", http_port=8081, dns_port=5353, syslog_port=5140)


async def code(host: str, port: int = 8000, **controller: bool) -> str:
    try:
        await RegistrationChecks(OWN, EffectiveConfig(cluster(**controller))).check_address(host, port, "address")
    except ApiError as refusal:
        return refusal.code
    return ""


@pytest.mark.parametrize("host", ["2852039166", "0xa9fea9fe", "169.254.43518", "0251.0376.0251.0376"])
async def test_other_ways_of_writing_an_address_are_the_same_address(host: str) -> None:
    assert await code(host) == "address_not_allowed"


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST.", "controller", "Gateway", "adapter"])
async def test_names_of_the_clusters_own_parts_are_refused(host: str) -> None:
    assert await code(host) == "address_not_allowed"


async def test_the_controllers_and_the_gateways_own_ports_are_refused_where_loopback_is_allowed() -> None:
    assert await code("127.0.0.1", 8081, register_loopback=True) == "address_not_allowed"
    assert await code("127.0.0.1", 8080, register_loopback=True) == "address_not_allowed"
    assert await code("127.0.0.1", 8000, register_loopback=True) == ""
    assert await code("10.213.77.2", 8000) == "address_not_allowed"


async def test_a_name_that_does_not_resolve_and_a_port_that_is_none_are_told() -> None:
    assert await code("no.such.host.invalid") == "address_unknown"
    assert await code("10.0.0.7", 0) == "invalid_request"
    assert await code("10.0.0.7", 70_000) == "invalid_request"


DOCKER = {
    "172.18.0.7": "manyeyes-gateway-1.manyeyes_front",
    "172.19.0.3": "manyeyes-gateway-1.manyeyes_adapter",
    "172.18.0.6": "manyeyes-prometheus-1.manyeyes_front",
    "172.20.0.2": "manyeyes-containers-1.manyeyes_containers",
    "172.18.0.4": "manyeyes-webui-2.manyeyes_front",
    "172.18.0.2": "manyeyes-alertmanager-1.manyeyes_front",
    "10.0.1.5": "manyeyes_gateway.1.s8f7.manyeyes_cluster",
    "10.213.77.131": "manyeyes-cpu-0-1.manyeyes_cluster",
    "10.213.77.140": "manyeyes-sglang-0-1.manyeyes_cluster",
    "10.9.9.9": "gateway.example.com",
    "10.9.9.8": "other-gateway-1.other_front",
}
"""Containers by their addresses, as Docker's DNS names them."""


@pytest.fixture
def dockers_names(monkeypatch: pytest.MonkeyPatch) -> None:
    def name(address: tuple[str, int], flags: int) -> tuple[str, str]:
        if address[0] not in DOCKER:
            raise socket.gaierror(socket.EAI_NONAME, "no name")
        return DOCKER[address[0]], "0"

    resolve = socket.getaddrinfo
    own = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 80)) for address in ("172.18.0.5", "172.19.0.2")]
    monkeypatch.setattr(socket, "getnameinfo", name)
    monkeypatch.setattr(socket, "gethostname", lambda: "3f2a9c")
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda host, *more, **kinds: own if host == "3f2a9c" else resolve(host, *more, **kinds)
    )


@pytest.mark.usefixtures("dockers_names")
@pytest.mark.parametrize(
    "address",
    ["172.18.0.7", "172.19.0.3", "172.18.0.6", "172.20.0.2", "172.18.0.4", "172.18.0.2", "10.0.1.5", "172.18.0.5", "172.19.0.2",
     "::ffff:172.18.0.5", "::ffff:172.18.0.7"],
)  # fmt: skip
async def test_every_address_of_every_part_is_refused_in_whichever_network(address: str) -> None:
    assert await code(address) == "address_not_allowed"


@pytest.mark.usefixtures("dockers_names")
@pytest.mark.parametrize("address", ["10.213.77.140", "10.9.9.9", "10.9.9.8", "10.9.9.7"])
async def test_engines_and_machines_of_others_are_no_parts_whatever_their_names(address: str) -> None:
    assert await code(address) == ""


@pytest.mark.usefixtures("dockers_names")
async def test_an_engine_of_the_cluster_is_not_registered_a_second_time() -> None:
    with pytest.raises(ApiError, match=r"10\.213\.77\.131 is the engine cpu-0 of this cluster already"):
        await RegistrationChecks(OWN, EffectiveConfig(cluster())).check_address("10.213.77.131", 8000, "address")
