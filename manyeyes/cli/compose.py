"""Runs Docker Compose with the files that were rendered for this host."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from docker.errors import ImageNotFound, NotFound

from manyeyes.cli import docker_install, host_info
from manyeyes.cli.docker_api import docker_client
from manyeyes.cli.process import CommandFailed, run
from manyeyes.cli.terminal import CliError
from manyeyes.config.checkout import PAGE_KEY, ROOT, secrets_folder, secrets_group
from manyeyes.observability.log_lines import format_sentence, read_line

LABEL = "com.docker.compose"
LOCAL_IMAGES_ONLY = ("--detach", "--no-build", "--pull", "never")
"""Options of `up` that use only local images."""


def rendered(project: str) -> Path:
    """Returns the folder of the files that `make up` renders for this host.

    compose/rendered/default is committed instead, for a plain Compose call.
    """
    return Path("compose/rendered") / f"host-{project}"


class Compose:
    """`docker compose` for one project."""

    def __init__(self, project: str, folder: Path | None = None) -> None:
        self.project = project
        self.rendered = folder or rendered(project)
        self.environment = {
            "MANYEYES_RENDERED": str(self.rendered),
            "MANYEYES_PROJECT": project,
            "MANYEYES_SECRETS_GROUP": str(secrets_group()),
        }
        if (page_key := secrets_folder() / PAGE_KEY).is_file():
            self.environment["MANYEYES_PAGE_KEY"] = str(page_key.absolute())

    @classmethod
    def of_started(cls, project: str) -> "Compose":
        """Uses the files from which this host's cluster was started, or the committed files if none, or not all, were
        rendered."""
        compose = cls(project)
        return (
            compose
            if (ROOT / compose.rendered / "monitoring.yaml").exists()
            else cls(project, Path("compose/rendered/default"))
        )

    def __call__(
        self, *arguments: str, timeout_s: float | None = None, on_line: Callable[[str], None] | None = None
    ) -> str:
        command = ["docker", "compose", "--progress", "plain", *arguments]
        return run(command, environment=self.environment, timeout_s=timeout_s, on_line=on_line)

    def containers(self) -> list[dict[str, Any]]:
        """All containers of the project, running or not, as in /containers/json, each with its `Service`."""
        with docker_client() as client:
            rows = client.api.containers(all=True, filters={"label": f"{LABEL}.project={self.project}"})
        return [{**row, "Service": row["Labels"].get(f"{LABEL}.service", "")} for row in rows]

    def inspect(self, service: str) -> list[dict[str, Any]]:
        ids = [row["Id"] for row in self.containers() if row["Service"] == service]
        with docker_client() as client:
            return [client.api.inspect_container(container_id) for container_id in ids]

    def runs(self) -> bool:
        return any(row["State"] == "running" for row in self.containers())

    def require_running(self) -> None:
        """Raises CliError if Docker or the cluster does not run."""
        docker = host_info.docker()
        docker_install.require_access(docker)
        if not docker.server or not self.runs():
            raise CliError(f"the cluster '{self.project}' is not running. Start it with `make up`.")

    def would_recreate(self, services: Sequence[str]) -> list[str]:
        """The services whose container has a different definition or image than `up` would start."""
        containers = {name: container for name in services for container in self.inspect(name)}
        if not containers:
            return []
        hashes = dict(line.split() for line in self("config", "--hash", "*", timeout_s=60).splitlines() if " " in line)
        return [
            name
            for name, container in containers.items()
            if container["Config"]["Labels"].get(f"{LABEL}.config-hash") != hashes.get(name)
            or container["Image"] != _image_id(container["Config"]["Image"])
        ]

    def network(self) -> dict[str, Any]:
        """The project's network, as `docker network inspect` shows it; empty if there is none."""
        with docker_client() as client:
            try:
                return dict(client.api.inspect_network(f"{self.project}_cluster"))
            except NotFound:
                return {}

    def subnet(self) -> str:
        """Subnet of the project's network; empty if there is none."""
        return "".join(config["Subnet"] for config in self.network().get("IPAM", {}).get("Config", ()))

    def network_is_closed(self) -> bool:
        """Whether the engines' network has no route to the outside; also true if there is no network."""
        return bool(self.network().get("Internal", True))

    def logs(self, service: str, lines: int = 15) -> str:
        """The last lines that a service printed, formatted."""
        try:
            output = self("logs", "--no-log-prefix", "--no-color", "--tail", str(lines), service, timeout_s=30)
        except (CommandFailed, TimeoutError) as error:
            return str(error)
        return "\n".join(format_sentence(read_line(service, line)) for line in output.splitlines())

    def full_environment(self) -> dict[str, str]:
        """The environment of this process, with the variables of the project."""
        return {**os.environ, **self.environment}

    def down(self, *options: str) -> None:
        """Stops and removes the project's containers and network, including those that older files started."""
        self("down", "--remove-orphans", *options, timeout_s=600)


def _image_id(reference: str) -> str:
    """Returns the id of the local image with this name; empty if there is none."""
    with docker_client() as client:
        try:
            return str(client.images.get(reference).id)
        except ImageNotFound:
            return ""
