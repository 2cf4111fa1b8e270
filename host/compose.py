"""Calls Docker Compose on the rendered files of this host."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from host import secrets
from host.command import CommandFailed, run


def rendered(project: str) -> Path:
    """Where `make up` writes what it renders for this host. rendered/default is committed, for a plain Compose call."""
    return Path("rendered") / f"host-{project}"


class Compose:
    """`docker compose` for one project."""

    def __init__(self, project: str, folder: Path | None = None) -> None:
        self.project = project
        self.rendered = folder or rendered(project)
        self.environment = {
            "MANYEYES_RENDERED": str(self.rendered),
            "MANYEYES_PROJECT": project,
            "MANYEYES_SECRETS_GROUP": str(secrets.group()),
        }

    def __call__(
        self, *arguments: str, timeout_s: float | None = None, on_line: Callable[[str], None] | None = None
    ) -> str:
        command = ["docker", "compose", "--progress", "plain", *arguments]
        return run(command, environment=self.environment, timeout_s=timeout_s, on_line=on_line)

    def containers(self) -> list[dict[str, Any]]:
        """Every container of the project, running or not: Service, State, Health, ExitCode, Name."""
        listed = run(
            [
                "docker",
                "ps",
                "-a",
                "--filter",
                f"label=com.docker.compose.project={self.project}",
                "--format",
                "{{json .}}",
            ],
            timeout_s=30,
        )
        rows = [json.loads(line) for line in listed.splitlines() if line.startswith("{")]
        for row in rows:
            labels = dict(pair.split("=", 1) for pair in row["Labels"].split(",") if "=" in pair)
            row["Service"] = labels.get("com.docker.compose.service", "")
        return rows

    def runs(self) -> bool:
        """Whether a container of the project runs."""
        return any(row["State"] == "running" for row in self.containers())

    def logs(self, service: str, lines: int = 15) -> str:
        """The last lines a service printed."""
        try:
            return self("logs", "--no-log-prefix", "--no-color", "--tail", str(lines), service, timeout_s=30)
        except (CommandFailed, TimeoutError) as error:
            return str(error)

    def down(self, volumes: bool = False) -> None:
        """Stops and removes containers and network of the project; also what older renderings started."""
        self("down", "--remove-orphans", *(["--volumes"] if volumes else []), timeout_s=600)
