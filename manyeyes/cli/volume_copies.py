"""Copies the volumes of a project to files and back, for `manyeyes backup|restore`."""

import subprocess
from pathlib import Path

from docker.errors import NotFound

from manyeyes.cli.compose import LABEL
from manyeyes.cli.docker_api import docker_client
from manyeyes.cli.terminal import CliError

COPY_S = 1800.0


class Volumes:
    """Copies the volumes of one project. `image` is a local image that contains tar."""

    def __init__(self, project: str, image: str) -> None:
        self.project = project
        self._image = image

    def exists(self, volume: str) -> bool:
        with docker_client() as client:
            try:
                client.api.inspect_volume(self.name(volume))
            except NotFound:
                return False
        return True

    def name(self, volume: str) -> str:
        return f"{self.project}_{volume}"

    def save(self, volume: str, file: Path) -> None:
        """Writes the volume's content to `file`. Raises CliError."""
        with file.open("wb") as output:
            self._tar(volume, ":ro", ["-C", "/volume", "-cf", "-", "."], stdout=output)

    def put(self, volume: str, file: Path) -> None:
        """Replaces the volume's content; creates the volume if needed, with Compose's labels. Raises CliError."""
        if not self.exists(volume):
            labels = {f"{LABEL}.project": self.project, f"{LABEL}.volume": volume}
            with docker_client() as client:
                client.api.create_volume(self.name(volume), labels=labels)
        empty_then_unpack = "find /volume -mindepth 1 -delete && exec tar -C /volume --numeric-owner -xpf -"
        with file.open("rb") as content:
            self._run(volume, "", ["/bin/sh", "-c", empty_then_unpack], stdin=content)

    def _tar(self, volume: str, mount_options: str, arguments: list[str], **streams: object) -> None:
        self._run(volume, mount_options, ["tar", "--numeric-owner", *arguments], **streams)

    def _run(self, volume: str, mount_options: str, command: list[str], **streams: object) -> None:
        """Runs the command as root with few capabilities, because a volume's files belong to the users of its
        containers."""
        entrypoint, *arguments = command
        capabilities = ["CHOWN", "DAC_OVERRIDE", "FOWNER"]
        docker_command = [
            "docker",
            "run",
            "--rm",
            "--interactive",
            "--network=none",
            "--user=0:0",
            "--read-only",
            "--cap-drop=ALL",
        ]
        docker_command += [f"--cap-add={name}" for name in capabilities]
        docker_command += [
            f"--volume={self.name(volume)}:/volume{mount_options}",
            f"--entrypoint={entrypoint}",
            self._image,
            *arguments,
        ]
        result = subprocess.run(docker_command, stderr=subprocess.PIPE, timeout=COPY_S, check=False, **streams)  # type: ignore[call-overload]
        if result.returncode:
            message = result.stderr.decode(errors="replace").strip()
            raise CliError(
                f"the volume {self.name(volume)} could not be copied: {message.splitlines()[-1] if message else '?'}"
            )
