"""A running cluster, tried from where an attacker may be: outside, in the page's container, in an engine's."""

import json
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from PIL import Image

from manyeyes.config.gateway import Images
from tests.e2e.host import Host

NAME, PORT, PROMETHEUS = "manyeyes-closed", 18092, 19092
CONFIG = f"""
name: {NAME}
flavour: emulated
emulated_engines: 2
pools:
  - {{name: big, model: org/Big-VL, media: {{allowed_domains: [pictures.example.com]}}}}
gateway: {{host: 0.0.0.0, anonymous: true, port: {PORT}}}
monitoring: {{prometheus_port: {PROMETHEUS}}}
network: {{subnet: 10.213.81.0/24, controller_ip: 10.213.81.2}}
"""
# Which of ADDRESSES x PORTS accept a connection.
SCAN = """
import asyncio, json, sys
async def one(address, port):
    try:
        _, writer = await asyncio.wait_for(asyncio.open_connection(address, port), 2)
        writer.close()
        return [address, port]
    except (OSError, TimeoutError):
        return None
async def main():
    wanted = [(a, p) for a in json.loads(sys.argv[1]) for p in eval(sys.argv[2])]
    found = []
    for at in range(0, len(wanted), 500):
        found += await asyncio.gather(*(one(*each) for each in wanted[at:at + 500]))
    print(json.dumps([each for each in found if each]))
asyncio.run(main())
"""
INNER_PORTS = "[2375, 3000, 3128, 5140, 5353, 7860, 8000, 8079, 8080, 8081, 8088, 9090, 9099, 9113]"


@dataclass
class Running:
    """`addresses`: {service: {network: address}}. `outside`: a network that no service is in."""

    outside: str
    addresses: dict[str, dict[str, str]]
    before: set[int]


def docker(*arguments: str) -> str:
    return subprocess.run(["docker", *arguments], check=True, capture_output=True, text=True).stdout


def host_in(network: str) -> str:
    return docker("network", "inspect", network, "--format", "{{(index .IPAM.Config 0).Gateway}}").strip()


def scan(network: str, addresses: list[str], ports: str) -> set[tuple[str, int]]:
    """From a container of its own in `network`."""
    command = ["run", "--rm", "--network", network, "--entrypoint", "python", Images().controller, "-c", SCAN]
    return {(str(a), int(p)) for a, p in json.loads(docker(*command, json.dumps(addresses), ports))}


def inside(service: str, program: str, *arguments: str) -> str:
    """What a program says that an intruder runs in a service's container."""
    ended = subprocess.run(
        ["docker", "exec", f"{NAME}-{service}-1", "python", "-c", program, *arguments], capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    host = Host.in_folder(tmp_path_factory.mktemp("closed"), CONFIG)
    outside = f"{NAME}-outside"
    docker("network", "create", outside)
    try:
        before = {port for _, port in scan(outside, [host_in(outside)], "range(1, 32768)")}
        status, said = host.make("up")
        assert status == 0, said
        names = docker("ps", "--filter", f"label=com.docker.compose.project={NAME}", "--format", "{{.Names}}").split()
        addresses = {}
        for told in json.loads(docker("inspect", *names)):
            networks = told["NetworkSettings"]["Networks"]
            service = told["Config"]["Labels"]["com.docker.compose.service"]
            addresses[service] = {name.removeprefix(f"{NAME}_"): one["IPAddress"] for name, one in networks.items()}
        yield Running(outside, addresses, before)
    finally:
        host.make("clean")
        docker("network", "rm", outside)


def test_a_scan_of_the_host_from_outside_finds_the_gateway_only(cluster: Running) -> None:
    found = {port for _, port in scan(cluster.outside, [host_in(cluster.outside)], "range(1, 32768)")}
    assert found - cluster.before == {PORT}


def test_a_scan_of_the_containers_from_another_network_finds_nothing(cluster: Running) -> None:
    everything = [address for one in cluster.addresses.values() for address in one.values()]
    assert len(everything) > 8
    assert scan(cluster.outside, everything, INNER_PORTS) == set()


def test_the_scan_can_find_something(cluster: Running) -> None:
    page = cluster.addresses["webui"]["front"]
    assert scan(f"{NAME}_front", [page], INNER_PORTS) == {(page, 7860)}


def test_the_engines_network_holds_engines_gateway_controller_and_prometheus_only(cluster: Running) -> None:
    inside = {name for name, networks in cluster.addresses.items() if "cluster" in networks}
    assert inside == {"emu-0", "emu-1", "gateway", "controller", "prometheus"}


def test_from_the_pages_container_neither_an_engine_nor_docker_can_be_reached(cluster: Running) -> None:
    closed = [networks["cluster"] for networks in cluster.addresses.values() if "cluster" in networks]
    closed += list(cluster.addresses["containers"].values())
    assert json.loads(inside("webui", SCAN, json.dumps(closed), INNER_PORTS)) == []
    names = inside("webui", "import os, socket\nfor name in ('emu-0', 'emu-1', 'containers'):\n"
                   " try: socket.gethostbyname(name); print(name)\n except OSError: pass\n"
                   "print(os.path.exists('/var/run/docker.sock') or os.path.exists('/run/docker.sock'))")  # fmt: skip
    assert names.split() == ["False"]
    # What it may talk to: the controller's reads, and the gateway. Names of engines are no address for it.
    controller = cluster.addresses["controller"]["front"]
    found = json.loads(inside("webui", SCAN, json.dumps([controller]), INNER_PORTS))
    assert found == [[controller, 8081]]


def test_from_the_pages_container_no_engine_can_be_drained(cluster: Running) -> None:
    program = """
import urllib.error, urllib.request
request = urllib.request.Request("http://controller:8081/api/engines/emu-0/drain", b"{}", {"Content-Type": "application/json"})
try: print(urllib.request.urlopen(request, timeout=5).status)
except urllib.error.HTTPError as error: print(error.code)
"""
    assert inside("webui", program).strip() == "401"


def test_an_engine_has_no_way_out(cluster: Running) -> None:
    host = host_in(cluster.outside)
    assert (
        json.loads(inside("emu-0", SCAN, json.dumps([host, "169.254.169.254", "1.1.1.1"]), f"[53, 80, 443, {PORT}]"))
        == []
    )
    assert [host, PORT] in json.loads(inside("webui", SCAN, json.dumps([host]), f"[{PORT}]")), (
        "the same is open elsewhere"
    )


UNLISTED = [
    "/metrics", "/health", "/load", "/ping", "/version", "/server_info", "/tokenize", "/detokenize", "/invocations", "/sleep",
    "/wake_up", "/is_sleeping", "/reset_prefix_cache", "/reset_mm_cache", "/reset_encoder_cache", "/collective_rpc", "/pause", "/resume",
    "/update_weights", "/scale_elastic_ep", "/is_scaling_elastic_ep", "/pooling", "/classify", "/score", "/rerank", "/openapi.json",
    "/docs", "/kv_event_sources", "/start_profile", "/stop_profile", "/v1/embeddings", "/v1/audio/transcriptions", "/v1/load_lora_adapter",
    "/v1/unload_lora_adapter", "/v1/messages", "/v1/score", "/v1/rerank", "/v2/rerank", "/inference/v1/generate", "/cohere/v2/embed",
    "/v1/chat/completions/render", "/v1//../metrics", "/v1/%2e%2e/metrics", "/v1/models/../../sleep", "/v1/chat/completions/../../../sleep",
]  # fmt: skip


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_no_unlisted_path_of_vllm_reaches_an_engine(cluster: Running, method: str) -> None:
    with httpx.Client(timeout=10) as client:
        for path in UNLISTED:
            reply = client.request(method, httpx.URL(f"http://127.0.0.1:{PORT}", raw_path=path.encode()))
            assert "X-ManyEyes-Engine" not in reply.headers, path
            if path.startswith("/v1"):
                assert reply.status_code == 404, (path, reply.status_code)
            else:
                # Everything else is the page's, which has nothing of the kind.
                assert reply.status_code in (404, 405), (path, reply.status_code)


LINKS = [
    "http://169.254.169.254/latest/meta-data", "http://127.0.0.1:8081/status", "http://[::1]/", "http://localhost/", "http://0x7f000001/",
    "http://2130706433/", "http://controller:8081/status", "http://10.213.81.2:8081/", "file:///etc/passwd", "ftp://pictures.example.com/a",
    "gopher://pictures.example.com/", "http://pictures.example.com@169.254.169.254/", "http://pictures.example.com\\@127.0.0.1/",
    "http://pictures.example.com.evil.example/", "http://pictures.example.com#@127.0.0.1/", "//169.254.169.254/", "http:/169.254.169.254/",
]  # fmt: skip


@pytest.mark.parametrize("link", [link for link in LINKS if "#" not in link])
def test_a_link_that_leads_inside_reaches_no_engine(cluster: Running, link: str) -> None:
    body = {"model": "big", "max_tokens": 1,
            "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": link}}]}]}  # fmt: skip
    reply = httpx.post(f"http://127.0.0.1:{PORT}/v1/chat/completions", json=body, timeout=10)
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, "media_url_not_allowed")
    assert "X-ManyEyes-Engine" not in reply.headers


FETCH = """
import asyncio, sys
from vllm.multimodal.media import MediaConnector
connector = MediaConnector(allowed_media_domains=["pictures.example.com", "inner.example.com", "metadata.example.com"])
async def main():
    for url in sys.argv[1:]:
        try:
            image = await connector.fetch_image_async(url)
            print("fetched", *getattr(image, "media", image).size)
        except Exception as error:
            print("refused", type(error).__name__, str(error)[:200].replace(chr(10), " "))
asyncio.run(main())
"""
PICTURES = """
import http.server
class Handler(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):
        if self.path != "/away": return super().do_GET()
        self.send_response(302); self.send_header("Location", "http://metadata.example.com/latest"); self.end_headers()
http.server.HTTPServer(("", 80), Handler).serve_forever()
"""


@pytest.fixture
def fetch(tmp_path: Path) -> Iterator[Callable[..., tuple[list[str], str]]]:
    """vLLM's own fetching, in a network with the proxy and a picture; what it says of each URL, and the proxy's log."""
    network = f"{NAME}-media"
    docker("network", "create", "--internal", network)
    Image.new("RGB", (40, 30)).save(tmp_path / "cat.png")
    tmp_path.chmod(0o755)
    domains = {"inner.example.com": False, "metadata.example.com": True, "pictures.example.com": True}
    at = ["run", "--rm", "--detach", "--network", network]
    started = [
        docker(
            *at, "--network-alias", "media", "--env", f"MEDIA_DOMAINS={json.dumps(domains)}",
            "--add-host", "metadata.example.com:169.254.169.254", "--add-host", f"inner.example.com:{host_in(network)}",
            "--entrypoint", "python", Images().controller, "-m", "manyeyes.egress_proxy",
        ).strip(),
        docker(
            *at, "--network-alias", "pictures.example.com", "--volume", f"{tmp_path}:/srv:ro", "--workdir", "/srv",
            "--entrypoint", "python", Images().python, "-c", PICTURES,
        ).strip(),
    ]  # fmt: skip
    settings = {
        "http_proxy": "http://media:3128",
        "https_proxy": "http://media:3128",
        "VLLM_MEDIA_FETCH_MAX_RETRIES": "1",
    }

    def fetched(*urls: str, **more: str) -> tuple[list[str], str]:
        environment = [f"--env={name}={value}" for name, value in (settings | more).items()]
        command = [
            "run",
            "--rm",
            "--network",
            network,
            *environment,
            "--entrypoint",
            "python",
            Images().vllm_cpu,
            "-c",
            FETCH,
        ]
        lines = [line for line in docker(*command, *urls).splitlines() if line.startswith(("fetched", "refused"))]
        return lines, docker("logs", started[0])

    try:
        yield fetched
    finally:
        docker("rm", "--force", *started)
        docker("network", "rm", network)


def test_vllms_own_fetching_takes_the_way_out_and_is_refused_where_a_name_leads_inside(
    fetch: Callable[..., tuple[list[str], str]],
) -> None:
    """vLLM compares names only; that one leads to the metadata service is the proxy's to see. Redirects are followed, as by default."""
    said, log = fetch(
        "http://pictures.example.com/cat.png",
        "http://inner.example.com/a.png",
        "http://metadata.example.com/latest",
        "https://metadata.example.com/latest",
        "http://pictures.example.com/away",
        "http://169.254.169.254/latest",
        VLLM_MEDIA_URL_ALLOW_REDIRECTS="1",
    )
    assert len(said) == 6, said
    assert said[0] == "fetched 40 30"
    assert all(line.startswith("refused") and "403" in line for line in said[1:5]), said
    assert "must be from one of the allowed domains" in said[5]  # vLLM's own list
    assert log.count("169.254.169.254 is link-local") == 3
    assert "is private, and media.allow_private is false" in log
