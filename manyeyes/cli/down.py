"""`manyeyes down|clean`: the cluster stopped and removed."""

from pathlib import Path

from manyeyes.cli import docker_install, env_file, host_info, started_services
from manyeyes.cli.compose import Compose
from manyeyes.cli.errors import CliError
from manyeyes.cli.process import CommandFailed
from manyeyes.cli.terminal import print_ok, step


def down(config: Path, volumes: bool) -> None:
    """With its volumes too where asked. Raises CliError."""
    docker = host_info.docker()
    docker_install.require_access(docker)
    if not docker.server:
        print_ok("Docker does not run, so nothing of the cluster does")
        return
    compose = Compose.of_started(started_services.configuration(config).name)
    with step("stopping the cluster") as current:
        try:
            compose.down(volumes=volumes)
        except CommandFailed as error:
            raise CliError(f"the cluster could not be stopped: {error.last_line}", details=error.output) from error
        current.outcome = "the cluster is down" + (
            ", its volumes are gone" if volumes else "; models and metrics are kept"
        )
    env_file.write_block({})
