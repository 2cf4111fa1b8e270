"""Checks that Docker works, and installs and starts it if possible."""

import os
import re
import shutil

from manyeyes.cli import host_info
from manyeyes.cli.host_info import Docker
from manyeyes.cli.process import CommandFailed, run
from manyeyes.cli.terminal import CliError, print_ok, print_warning, step
from manyeyes.config.checkout import ROOT

OLDEST_ENGINE = (26, 0)
"""The oldest version that mounts a folder of a volume (`subpath`)."""
NO_ENGINE = re.compile(
    r"cannot connect to the docker daemon|is the docker daemon running|connection refused|no such file", re.IGNORECASE
)
"""Messages of Docker's client if no engine runs."""
OLDEST_COMPOSE = (2, 27)
"""The oldest version that is known to pass `subpath` of a volume to Docker."""


def ensure() -> Docker:
    """Returns working versions of Docker and Compose. As root on Debian and Ubuntu it installs and starts them. Raises
    CliError."""
    docker = host_info.docker()
    if not docker.client or (not docker.compose and not docker.server):
        docker = _install("Docker is missing")
    elif not docker.server and not _may_start():
        raise CliError(
            f"Docker's engine does not answer: {docker.error}. Start it (systemctl start docker), "
            "add yourself to the group docker, or run this as root."
        )
    if not docker.server:
        docker = _start_or_install()
    if not docker.compose or _is_older(docker.compose, OLDEST_COMPOSE):
        docker = _install(f"Docker Compose is {docker.compose or 'missing'}")
    if problems := too_old(docker):
        raise CliError(*problems)
    print_ok(f"Docker {docker.server}, Compose {docker.compose}")
    return docker


def require_access(docker: Docker) -> None:
    """Raises CliError if Docker may run but denies access or does not answer: the state of the cluster is then
    unknown."""
    if docker.client and not docker.server and docker.error and not NO_ENGINE.search(docker.error):
        raise CliError(
            f"Docker is not accessible, so it is unknown whether the cluster runs: {docker.error}. "
            "Add yourself to the group docker (usermod -aG docker NAME, then log in again), or run this with sudo."
        )


def too_old(docker: Docker) -> list[str]:
    """Returns one sentence for each part that is older than the Compose files require."""
    versions = (("Docker Engine", docker.server, OLDEST_ENGINE), ("Docker Compose", docker.compose, OLDEST_COMPOSE))
    return [
        f"{name} {version} is too old; {oldest[0]}.{oldest[1]} or newer is required. "
        "`make docker` as root installs a newer version on Debian and Ubuntu."
        for name, version, oldest in versions
        if version and _is_older(version, oldest)
    ]


def install() -> Docker:
    """`make docker`: installs Docker and Compose if they are missing or too old, and starts Docker's engine."""
    docker = host_info.docker()
    if not docker.client or not docker.compose or too_old(docker):
        _install(" ".join(too_old(docker)) or "Docker or Compose is missing")
    return ensure()


def _install(reason: str) -> Docker:
    if os.environ.get("DOCKER") == "keep":
        raise CliError(
            f"{reason}, and DOCKER=keep prevents installing it. Install Docker Engine and Compose v2 yourself."
        )
    if not host_info.is_debian():
        raise CliError(f"{reason}. Install Docker Engine and Compose v2 for {host_info.system()}, then run this again.")
    if not host_info.is_root():
        raise CliError(
            f"{reason}. Run `sudo make docker`, then run this again. Or install Docker Engine and Compose v2."
        )
    print_warning(f"{reason}: installing it from this system's packages (DOCKER=keep prevents this)")
    with step("installing Docker") as current:
        try:
            run(
                [str(ROOT / "manyeyes/cli/docker/install.sh")], on_line=lambda line: setattr(current, "note", line[:60])
            )
        except CommandFailed as error:
            raise CliError(f"Docker could not be installed: {error.last_line}", details=error.output) from error
        docker = host_info.docker()
        current.outcome = f"installed Docker {docker.client}, Compose {docker.compose}"
    return docker


def _may_start() -> bool:
    return host_info.is_root() and os.environ.get("DOCKER") != "keep" and not os.environ.get("DOCKER_HOST")


def _start_or_install() -> Docker:
    if not shutil.which("dockerd"):
        _install("Docker's engine is missing")
    with step("starting Docker's engine"):
        try:
            run([str(ROOT / "manyeyes/cli/docker/start.sh")], timeout_s=90)
        except (CommandFailed, TimeoutError) as error:
            details = error.output if isinstance(error, CommandFailed) else str(error)
            raise CliError("Docker's engine does not start. Its log is above.", details=details) from error
    docker = host_info.docker()
    if not docker.server:
        raise CliError(f"Docker's engine was started but does not answer: {docker.error}")
    return docker


def _is_older(version: str, oldest: tuple[int, int]) -> bool:
    parts = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    return parts < oldest
