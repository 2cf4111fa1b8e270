"""The filter in front of Docker's socket, with the real nginx: what passes, and that nothing else does."""

import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from prometheus_client import REGISTRY

from manyeyes.config.placement import PlacedCluster
from manyeyes.controller.autoscaling.actuators import ActuatorError, ContainerActuator
from manyeyes.controller.config_sync.effective_config import EffectiveConfig
from manyeyes.controller.telemetry.container_stats import ContainerStats
from tests.integration.docker_socket import FakeDocker, docker_behind_filter
from tests.placed import placed

CLUSTER = """
name: mine
pools: [{name: big, model: m}]
engines:
  - {name: gpu-0, pool: big, gpus: [0]}
  - {name: gpu-1, pool: big, gpus: [1]}
  - {name: elsewhere, pool: big, address: "10.0.0.9:8000"}
"""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[FakeDocker, str]]:
    with docker_behind_filter(tmp_path_factory.mktemp("filter"), placed(CLUSTER)) as (docker, url):
        yield docker, url


@pytest.fixture
def behind(running: tuple[FakeDocker, str]) -> tuple[FakeDocker, str]:
    docker, _ = running
    for kept in (docker.seen, docker.bodies, docker.headers, docker.states, docker.started_at):
        kept.clear()
    for project, engine in (("mine", "gpu-0"), ("mine", "gpu-1"), ("other", "gpu-0"), ("mine", "elsewhere")):
        docker.add(project, engine)
    return running


@pytest.mark.parametrize("action", ["start", "stop", "restart"])
def test_this_projects_engines_are_started_stopped_and_restarted(behind: tuple[FakeDocker, str], action: str) -> None:
    docker, url = behind
    docker.states["mine-gpu-0-1"] = "exited" if action == "start" else "running"
    assert httpx.post(f"{url}/containers/mine-gpu-0-1/{action}").status_code == 204
    assert docker.seen == [f"POST /containers/mine-gpu-0-1/{action}"]


def test_only_this_projects_engines_are_listed_whatever_is_asked_for(behind: tuple[FakeDocker, str]) -> None:
    docker, url = behind
    assert httpx.get(f"{url}/containers/json?all=1&filters=%7B%7D&size=1").status_code == 200
    assert docker.seen == [
        "GET /containers/json?all=1&filters=%7B%22label%22%3A%5B%22com.docker.compose.project%3Dmine%22%2C%22manyeyes.engine%22%5D%7D"
    ]


@pytest.mark.parametrize("service", ["gpu-0", "gateway", "controller", "prometheus"])
def test_a_containers_use_is_told_at_once_and_never_streamed(behind: tuple[FakeDocker, str], service: str) -> None:
    docker, url = behind
    assert httpx.get(f"{url}/containers/mine-{service}-1/stats?stream=true").status_code == 200
    assert docker.seen == [f"GET /containers/mine-{service}-1/stats?stream=false&one-shot=true"]


async def test_use_and_restarts_of_containers_become_metrics(behind: tuple[FakeDocker, str]) -> None:
    docker, url = behind
    looked = placed(CLUSTER)
    async with httpx.AsyncClient() as client:
        use = ContainerStats(EffectiveConfig(looked), client, url)
        for seconds in (10, 12.5, 1):  # the third time it began anew
            docker.stats["mine-gpu-0-1"] = {
                "cpu_stats": {"cpu_usage": {"total_usage": int(seconds * 1e9)}},
                "memory_stats": {"usage": 900, "limit": 4096, "stats": {"inactive_file": 100}},
            }
            await use.poll()
    assert told("manyeyes_container_cpu_seconds_total", "gpu-0") == 3.5
    assert told("manyeyes_container_memory_bytes", "gpu-0") == 800
    assert told("manyeyes_container_memory_limit_bytes", "gpu-0") == 4096
    assert told("manyeyes_container_restarts", "gpu-0") == 2
    assert told("manyeyes_container_memory_bytes", "gateway") is None  # does not run


def told(metric: str, service: str) -> float | None:
    return REGISTRY.get_sample_value(metric, {"service": service})


def test_query_body_and_headers_never_reach_docker(behind: tuple[FakeDocker, str]) -> None:
    docker, url = behind
    body = b'{"HostConfig": {"Privileged": true}}'
    headers = {"X-Registry-Auth": "x", "Upgrade": "tcp", "Connection": "Upgrade"}
    reply = httpx.post(f"{url}/containers/mine-gpu-0-1/restart?t=0&signal=KILL", content=body, headers=headers)
    assert reply.status_code == 204
    assert docker.seen == ["POST /containers/mine-gpu-0-1/restart"]
    assert docker.bodies == [b""]
    assert not {"x-registry-auth", "upgrade"} & docker.headers[0].keys()


FORBIDDEN = [
    ("GET", "/"),
    ("GET", "/version"),
    ("GET", "/info"),
    ("GET", "/events"),
    ("GET", "/images/json"),
    ("GET", "/v1.44/containers/json"),
    ("GET", "/containers/json/"),
    ("POST", "/containers/json"),
    ("POST", "/containers/create"),
    ("POST", "/containers/create?name=mine-gpu-0-1"),
    ("POST", "/containers/prune"),
    ("GET", "/containers/mine-gpu-0-1/logs"),
    ("GET", "/containers/mine-gpu-0-1/export"),
    ("GET", "/containers/mine-gpu-0-1/archive?path=/"),
    ("PUT", "/containers/mine-gpu-0-1/archive?path=/"),
    ("POST", "/containers/mine-gpu-0-1/exec"),
    ("POST", "/containers/mine-gpu-0-1/attach"),
    ("POST", "/containers/mine-gpu-0-1/kill"),
    ("POST", "/containers/mine-gpu-0-1/update"),
    ("POST", "/containers/mine-gpu-0-1/rename?name=x"),
    ("DELETE", "/containers/mine-gpu-0-1"),
    ("DELETE", "/containers/mine-gpu-0-1/stop"),
    ("GET", "/containers/mine-gpu-0-1/start"),
    ("PUT", "/containers/mine-gpu-0-1/start"),
    ("POST", "/containers/mine-gpu-0-1/json"),
    ("POST", "/containers/mine-gpu-0-1/start/"),
    ("POST", "/containers/mine-gpu-0-1/start.."),
    ("POST", "/containers/mine-gpu-0/start"),
    ("POST", "/containers/mine-gpu-0-2/start"),
    ("POST", "/containers/MINE-GPU-0-1/start"),
    ("POST", "/containers/mine-controller-1/stop"),
    ("POST", "/containers/mine-gateway-1/restart"),
    ("POST", "/containers/mine-elsewhere-1/stop"),
    ("POST", "/containers/other-gpu-0-1/stop"),
    ("GET", "/containers/other-gpu-0-1/json"),
    ("GET", "/containers/mine-gateway-1/json"),
    ("GET", "/containers/other-gateway-1/stats"),
    ("GET", "/containers/mine-gpu-0-1/stats/"),
    ("POST", "/containers/mine-gpu-0-1/stats"),
    ("POST", "/v1.44/containers/mine-gpu-0-1/stop"),
    ("POST", "/containers/mine-gpu-0-1/../other-gpu-0-1/stop"),
    ("POST", "/containers/mine-gpu-0-1/%2e%2e/other-gpu-0-1/stop"),
    ("POST", "/containers/mine-gpu-0-1%2f..%2fother-gpu-0-1/stop"),
    ("POST", "/containers/other-gpu-0-1%2fstop"),
    ("POST", "/containers/mine-gpu-0-1%00/stop"),
    ("POST", "/containers/mine-gpu-0-1/start%0d%0aX: y"),
    ("POST", "/build"),
    ("POST", "/swarm/init"),
    ("POST", "/plugins/pull"),
    ("GET", "/secrets"),
    ("POST", "/session"),
    ("POST", "/grpc"),
]


@pytest.mark.parametrize(("method", "path"), FORBIDDEN)
def test_everything_else_is_refused_and_docker_never_hears_of_it(
    behind: tuple[FakeDocker, str], method: str, path: str
) -> None:
    docker, url = behind
    status = _raw(url, method, path)
    assert status in (b"403", b"400"), status
    assert docker.seen == []


@pytest.mark.parametrize(
    "path",
    [
        "/containers/other-gpu-0-1/../mine-gpu-0-1/stop",
        "//containers//mine-gpu-0-1//stop",
        "/containers/./mine%2dgpu-0-1/stop",
        "/containers/x/%2e%2e/mine-gpu-0-1/stop?x=/containers/other-gpu-0-1/stop#/y",
    ],
)
def test_another_spelling_of_an_allowed_path_reaches_docker_in_its_own_words(
    behind: tuple[FakeDocker, str], path: str
) -> None:
    docker, url = behind
    assert _raw(url, "POST", path) == b"204"
    assert docker.seen == ["POST /containers/mine-gpu-0-1/stop"]


def test_a_second_request_hidden_in_the_first_is_refused(behind: tuple[FakeDocker, str]) -> None:
    """Docker gets no body and its own headers, so lengths that contradict each other smuggle nothing."""
    docker, url = behind
    hidden = b"POST /containers/other-gpu-0-1/stop HTTP/1.1\r\nHost: x\r\n\r\n"
    head = b"POST /containers/mine-gpu-0-1/restart HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    _send(url, head + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + hidden)
    _send(url, head + b"Content-Length: %d\r\n\r\n" % len(hidden) + hidden)
    assert set(docker.seen) <= {"POST /containers/mine-gpu-0-1/restart"}


def test_without_containers_nothing_at_all_passes(tmp_path: Path) -> None:
    cluster: PlacedCluster = placed(CLUSTER + "controller: {containers: false}")
    with docker_behind_filter(tmp_path, cluster) as (docker, url):
        for method, path in (("GET", "/_ping"), ("GET", "/containers/json"), ("POST", "/containers/mine-gpu-0-1/stop")):
            assert httpx.request(method, url + path).status_code == 403
        assert docker.seen == []


async def test_the_controllers_client_says_what_is_wrong(behind: tuple[FakeDocker, str]) -> None:
    docker, url = behind
    docker.states["mine-gpu-1-1"] = "exited"
    engines = placed(CLUSTER).engines
    async with httpx.AsyncClient(trust_env=False) as client:
        mine = ContainerActuator(client, url, "mine", 10)
        assert await mine.find_stopped(engines) == {"gpu-0": False, "gpu-1": True, "elsewhere": False}
        await mine.start(engines[1])
        await mine.start(engines[1])  # 304 is as good
        assert docker.states["mine-gpu-1-1"] == "running"
        assert (await mine.started_at("gpu-0")).year == 2020
        with pytest.raises(ActuatorError, match="filter in front of Docker's socket does not allow"):
            await mine.stop(engines[2])
        del docker.states["mine-gpu-0-1"]
        with pytest.raises(ActuatorError, match="no such container"):
            await mine.restart("gpu-0")
        with pytest.raises(ActuatorError, match="does not answer"):
            await ContainerActuator(client, "http://127.0.0.1:9", "mine", 10).states()


def _raw(url: str, method: str, path: str) -> bytes:
    """The status of a request whose path is sent as it is written."""
    reply = _send(url, f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    return reply.split(b" ")[1] if reply else b"400"


def _send(url: str, sent: bytes) -> bytes:
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as client:
        client.sendall(sent)
        received = b""
        while chunk := client.recv(65_536):
            received += chunk
        return received
