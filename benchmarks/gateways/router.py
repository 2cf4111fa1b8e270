"""A router that is one command from PyPI and takes its engines with --worker-urls: what vllm-router and its kin share."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.gateways.gateway import Gateway, Setting, command
from benchmarks.install_competitors import environment_for, from_pypi, pinned
from manyeyes.devcluster.cluster import free_port


def router(
    package: str,
    name: str,
    program: Sequence[str],
    flags: Sequence[str],
    settings: tuple[Setting, ...],
    headers: tuple[str, ...] = (),
    leading: bool = True,
) -> Gateway:
    """The gateway `package` `name`. `program`: its command inside the package's environment, before --host."""

    def version() -> str:
        from_pypi(package)
        return pinned(package, package)

    def environment() -> Mapping[str, str]:
        return environment_for(from_pypi(package))

    def make(folder: Path, port: int, engines: Sequence[str]) -> list[str]:
        executable, *arguments = program
        return [
            str(from_pypi(package) / "bin" / executable),
            *arguments,
            "--host=127.0.0.1",
            f"--port={port}",
            f"--prometheus-port={free_port()}",
            *flags,
            "--worker-urls",
            *(f"http://{engine}" for engine in engines),
        ]

    return Gateway(
        name=f"{package} {name}",
        product=package,
        version=version,
        run=command(make, environment),
        settings=settings,
        headers=headers,
        leading=leading,
    )
