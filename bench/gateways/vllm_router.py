"""vllm-project/router (Rust), with each policy that works in front of plain engines."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.gateways.gateway import Gateway, Setting, command
from bench.install import environment_for, from_pypi, pinned
from tests.process.stand import free_port

NAME = "vllm-router"
POLICIES = "https://github.com/vllm-project/router/blob/main/docs/load_balancing/README.md"
HELP = "vllm-router --help"
# docs/load_balancing orders them so; the first one present wins.
HEADERS = ("X-Session-ID", "X-User-ID")

WHY = {
    "cache_aware": "the program's default",
    "consistent_hash": "the page's choice for chats; without a header it hashes the body",
    "sticky_least_loaded": "new sessions to the engine with the fewest; without a header it keeps no sessions",
    "power_of_two": "the page's choice where load matters",
    "round_robin": "the page's choice for work without state",
    "random": "the page's choice for tests",
}


def _version() -> str:
    from_pypi(NAME)
    return pinned(NAME, NAME)


def _environment() -> Mapping[str, str]:
    return environment_for(from_pypi(NAME))


def _gateway(policy: str) -> Gateway:
    def make(folder: Path, port: int, engines: Sequence[str]) -> list[str]:
        return [
            str(from_pypi(NAME) / "bin/vllm-router"),
            "--host=127.0.0.1",
            f"--port={port}",
            f"--prometheus-port={free_port()}",
            f"--policy={policy}",
            "--worker-urls",
            *(f"http://{engine}" for engine in engines),
        ]

    return Gateway(
        name=f"{NAME} {policy}",
        product=NAME,
        version=_version,
        run=command(make, _environment),
        headers=HEADERS if policy in ("consistent_hash", "sticky_least_loaded") else (),
        leading=policy in ("cache_aware", "consistent_hash"),
        settings=(
            Setting(f"--policy {policy}", WHY[policy], POLICIES),
            Setting("everything else at its default", "its maker's choice", HELP),
        ),
    )


GATEWAYS = tuple(_gateway(policy) for policy in WHY)
NOT_RUN = {f"{NAME} kv_aware": "it needs engines that publish KV events over ZMQ, which the emulated ones do not"}
