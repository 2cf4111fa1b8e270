"""Shepherd Model Gateway (Rust), what sglang-router became."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.gateways.gateway import Gateway, Setting, command
from bench.install import environment_for, from_pypi, pinned
from tests.process.stand import free_port

NAME = "smg"
BALANCING = "https://github.com/lightseekorg/smg/blob/main/docs/concepts/routing/load-balancing.md"
STICKY = "https://github.com/smg-project/smg-docs/blob/main/src/lib/content/concepts/routing/sticky-sessions.md"


def _version() -> str:
    from_pypi(NAME)
    return pinned(NAME, NAME)


def _environment() -> Mapping[str, str]:
    return environment_for(from_pypi(NAME))


def _gateway(
    name: str, flags: tuple[str, ...], why: tuple[Setting, ...], headers: tuple[str, ...], leading: bool
) -> Gateway:
    def make(folder: Path, port: int, engines: Sequence[str]) -> list[str]:
        return [
            str(from_pypi(NAME) / "bin/smg"),
            "launch",
            "--host=127.0.0.1",
            f"--port={port}",
            f"--prometheus-port={free_port()}",
            "--backend=vllm",
            *flags,
            "--worker-urls",
            *(f"http://{engine}" for engine in engines),
        ]

    return Gateway(
        name=f"{NAME} {name}",
        product=NAME,
        version=_version,
        run=command(make, _environment),
        headers=headers,
        leading=leading,
        settings=(
            *why,
            Setting(
                "--backend vllm; everything else at its default", "the engines are of vLLM's kind", "smg launch --help"
            ),
        ),
    )


GATEWAYS = (
    _gateway(
        "cache_aware",
        ("--policy=cache_aware", "--routing-key-override"),
        (
            Setting("--policy cache_aware", "the page's recommendation for chats, and the default", BALANCING),
            Setting("--routing-key-override", "its sticky sessions; without the header it does nothing", STICKY),
        ),
        headers=("X-SMG-Routing-Key",),
        leading=True,
    ),
    _gateway(
        "power_of_two",
        ("--policy=power_of_two",),
        (Setting("--policy power_of_two", "the page's choice for balance without caches", BALANCING),),
        headers=(),
        leading=False,
    ),
)
