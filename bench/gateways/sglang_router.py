"""sgl-project's router (Rust), as the package sglang-router; smg.py has its successor."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.gateways.gateway import Gateway, Setting, command
from bench.install import environment_for, from_pypi, pinned
from tests.process.stand import free_port

NAME = "sglang-router"
DOCS = "https://github.com/sgl-project/sglang/blob/main/docs/advanced_features/sgl_model_gateway.md"


def _version() -> str:
    from_pypi(NAME)
    return pinned(NAME, NAME)


def _environment() -> Mapping[str, str]:
    return environment_for(from_pypi(NAME))


def _gateway(
    name: str, flags: tuple[str, ...], why: str, headers: tuple[str, ...] = (), leading: bool = True
) -> Gateway:
    def make(folder: Path, port: int, engines: Sequence[str]) -> list[str]:
        return [
            str(from_pypi(NAME) / "bin/python"),
            "-m",
            "sglang_router.launch_router",
            "--host=127.0.0.1",
            f"--port={port}",
            f"--prometheus-port={free_port()}",
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
            Setting(" ".join(flags), why, DOCS),
            Setting(
                "everything else at its default", "its maker's choice", "python -m sglang_router.launch_router --help"
            ),
        ),
    )


GATEWAYS = (
    _gateway("cache_aware", ("--policy=cache_aware",), "the program's default, and its page's for chats"),
    _gateway(
        "manual",
        ("--policy=manual", "--assignment-mode=min_load"),
        "its stickiness by header; new sessions to the engine with the fewest requests",
        headers=("X-SMG-Routing-Key",),
        leading=False,
    ),
    _gateway("power_of_two", ("--policy=power_of_two",), "its policy by load alone", leading=False),
)
