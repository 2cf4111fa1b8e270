"""Measures CPU and memory of the controller: `manyeyes bench controller`. Prints one line per figure; README.md explains them."""

import argparse
import asyncio
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dns.message
import httpx
import uvloop
import yaml

from benchmarks import many_engines
from loadtest.host_info import cpu_s, resident_mb, start_process_group
from loadtest.result_files import ROOT
from manyeyes.controller.health import vllm_metrics
from manyeyes.controller.health.http_connection import ProbeConnection

CALLS = 3000


async def cost_us(call: Callable[[], Awaitable[object]]) -> float:
    for _ in range(100):
        await call()
    began = time.process_time()
    for _ in range(CALLS):
        await call()
    return (time.process_time() - began) / CALLS * 1e6


async def clients(port: int) -> dict[str, float]:
    connection = await ProbeConnection.open("127.0.0.1", port, 5, lambda: None)

    async def by_protocol() -> None:
        response = connection.send("/health", 1 << 16)
        await asyncio.wait([response], timeout=1)
        response.result()

    reader, writer = await asyncio.open_connection("127.0.0.1", port)

    async def by_streams() -> None:
        async with asyncio.timeout(1):
            writer.write(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")

    async with httpx.AsyncClient(trust_env=False) as client:

        async def by_httpx() -> None:
            (await client.get(f"http://127.0.0.1:{port}/health")).raise_for_status()

        costs = {
            "httpx": await cost_us(by_httpx),
            "asyncio streams, no HTTP parser": await cost_us(by_streams),
            "manyeyes/controller/health/http_connection.py (Protocol, httptools)": await cost_us(by_protocol),
        }
    connection.close()
    writer.close()
    return costs


def scanning_us(text: bytes) -> dict[str, float]:
    """CPU time in µs to read the required values from one engine's metrics."""
    from prometheus_client.parser import text_string_to_metric_families

    costs = {}
    places: dict[str, int] = {}
    for name, times in (("scan, first read", 1), ("scan, later reads", 2000)):
        began = time.process_time()
        for _ in range(times):
            counters = vllm_metrics.read(text, places)
        assert counters
        costs[name] = (time.process_time() - began) / times * 1e6
        places = counters.places
    began = time.process_time()
    list(text_string_to_metric_families(text.decode()))
    costs["prometheus_client's parser"] = (time.process_time() - began) * 1e6
    return costs


FIRST_PORT = 31_000
HTTP, DNS, SYSLOG = 30_990, 30_991, 30_992


def cluster(pools: int, each: int, first_port: int) -> dict[str, Any]:
    names = [f"p{number}" for number in range(pools)]
    return {
        "flavour": "emulated",
        # No gateway runs here to reload its files. The controller's wait for a reload is short, because it is not measured.
        "controller": {"reload_timeout_s": 1},
        "pools": [{"name": name, "model": f"org/{name}", "max_in_flight": 96} for name in names],
        "engines": [
            {"name": f"{name}-e{number}", "pool": name, "address": f"127.0.0.1:{first_port + index * each + number}",
             "flavour": "emulated"}
            for index, name in enumerate(names)
            for number in range(each)
        ],
    }  # fmt: skip


@contextmanager
def controller(document: dict[str, Any]) -> Iterator[int]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "cluster.yaml").write_text(yaml.safe_dump(document))
        (folder / "inventory.yaml").write_text("flavour: emulated\n")
        environment = {
            "MANYEYES_CONFIG": f"{folder}/cluster.yaml",
            "MANYEYES_INVENTORY": f"{folder}/inventory.yaml",
            "MANYEYES_STATE": f"{folder}/state",
            "MANYEYES_CONTROLLER_HOST": "127.0.0.1",
            "MANYEYES_CONTROLLER_HTTP_PORT": str(HTTP),
            "MANYEYES_CONTROLLER_DNS_PORT": str(DNS),
            "MANYEYES_CONTROLLER_SYSLOG_PORT": str(SYSLOG),
        }
        command = [sys.executable, "-m", "manyeyes.controller"]
        with start_process_group(command, folder / "log", environment, ROOT) as process:
            yield process


def get(path: str) -> httpx.Response:
    return httpx.get(f"http://127.0.0.1:{HTTP}{path}", timeout=30, trust_env=False)


def wait_up(count: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if sum(pool["up"] for pool in get("/status").json()["pools"]) == count:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    raise SystemExit(f"expected {count} engines to be up within a minute")


def cpu_share(process: int, seconds: float, meanwhile: Callable[[float], None] = time.sleep) -> float:
    """CPU seconds per second while the controller gets no requests, or while `meanwhile(seconds)` runs."""
    before, began = cpu_s([process]), time.monotonic()
    meanwhile(seconds)
    return (cpu_s([process]) - before) / (time.monotonic() - began)


class NginxLikeClient:
    """Sends nginx's requests once a second: SRV of each pool and A of each engine (resolver), and /status (njs)."""

    def __init__(self, document: dict[str, Any]) -> None:
        names = [(f"_http._tcp.{pool['name']}.pool.manyeyes.internal", "SRV") for pool in document["pools"]]
        names += [(f"{engine['name']}.engine.manyeyes.internal", "A") for engine in document["engines"]]
        self.queries = [dns.message.make_query(name, kind, use_edns=False).to_wire() for name, kind in names]
        self.srv = len(document["pools"])
        self.response_ms: list[float] = []
        """Response time of each SRV query and each A query, measured by the client."""

    def __call__(self, seconds: float) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.connect(("127.0.0.1", DNS))
            client.settimeout(5)
            until = time.monotonic() + seconds
            while (second := time.monotonic()) < until:
                for wire in self.queries:
                    began = time.perf_counter()
                    client.send(wire)
                    client.recv(4096)
                    self.response_ms.append((time.perf_counter() - began) * 1e3)
                get("/status")
                time.sleep(max(0.0, 1 - (time.monotonic() - second)))


def cold_ms(document: dict[str, Any]) -> list[float]:
    """Time to build each pool's DNS answer when it is not cached, in this process."""
    from manyeyes.config.loader import parse
    from manyeyes.config.placement import Inventory, place_engines
    from manyeyes.controller.health.states import EngineHealth, EngineState
    from manyeyes.controller.membership.dns import DnsResponder
    from manyeyes.controller.membership.fleet import Fleet

    fleet = Fleet(place_engines(parse(yaml.safe_dump(document)), Inventory()))
    for number, member in enumerate(fleet.members.values()):
        member.address = f"10.0.{number // 250}.{number % 250 + 1}"
        member.health = EngineHealth(state=EngineState.UP, settled=True)
    answers, times_ms = DnsResponder(fleet), []
    for _ in range(20):
        fleet.version += 1
        for pool in document["pools"]:
            wire = dns.message.make_query(f"_http._tcp.{pool['name']}.pool.manyeyes.internal", "SRV").to_wire()
            began = time.perf_counter()
            answers.to(wire, over_udp=True)
            times_ms.append((time.perf_counter() - began) * 1e3)
    return times_ms


def percentiles(values: list[float]) -> str:
    ordered = sorted(values)
    return (
        f"p50 {statistics.median(ordered):.2f} ms, p99 {ordered[int(len(ordered) * 0.99)]:.2f} ms (of {len(ordered)})"
    )


def say(subject: str, result: str) -> None:
    print(f"{subject}: {result}", flush=True)


def per_minute(share: float) -> str:
    return f"{share * 60:.2f} s of CPU per minute ({share * 100:.2f} % of a core)"


def main() -> None:
    options = argparse.ArgumentParser(prog="python -m benchmarks.controller", description=__doc__)
    options.add_argument("--seconds", type=float, default=60, help="duration of each measurement")
    options.add_argument("--repeats", type=int, default=3)
    options.add_argument("--only", choices=("look", "many", "few", "nobody"), help="run only this part")
    chosen = options.parse_args()
    many = cluster(20, 10, FIRST_PORT)
    wants = [chosen.only] if chosen.only else ["look", "many", "few", "nobody"]
    with many_engines.many(FIRST_PORT, 200):
        if "look" in wants:
            for name, us in uvloop.run(clients(FIRST_PORT)).items():
                say(f"one GET /health by {name}", f"{us:.0f} us of CPU")
            text = many_engines.metrics()
            for name, us in scanning_us(text).items():
                say(f"metrics of {len(text) // 1000} KB, {name}", f"{us:.0f} us of CPU")
            say("an SRV answer for 10 engines, not cached", percentiles(cold_ms(many)))
        for name, document, count in (("many", many, 200), ("few", cluster(1, 3, FIRST_PORT), 3)):
            if name not in wants:
                continue
            subject = f"{count} engines in {len(document['pools'])} pools"
            with controller(document) as process:
                wait_up(count)
                time.sleep(5)
                for _ in range(chosen.repeats):
                    say(f"{subject}, probes only", per_minute(cpu_share(process, chosen.seconds)))
                gateway = NginxLikeClient(document)
                for _ in range(chosen.repeats):
                    say(
                        f"{subject}, probes and requests of a gateway",
                        per_minute(cpu_share(process, chosen.seconds, gateway)),
                    )
                say(f"{subject}, DNS response time measured by the client", percentiles(gateway.response_ms))
                say(f"{subject}, memory", f"{resident_mb(process):.0f} MB")
                before = cpu_s([process])
                for _ in range(5):
                    size = len(get("/metrics").content)
                say(
                    f"{subject}, one scrape",
                    f"{(cpu_s([process]) - before) / 5 * 1e3:.0f} ms of CPU, {size // 1000} KB",
                )
    if "nobody" in wants:
        with controller(cluster(1, 3, FIRST_PORT)) as process:
            time.sleep(70)  # longer than the first minute, in which missing engines are probed more often
            for _ in range(chosen.repeats):
                say("3 unreachable engines, probes only", per_minute(cpu_share(process, chosen.seconds)))


if __name__ == "__main__":
    main()
