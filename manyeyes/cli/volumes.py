"""Docker volumes of the project, out to a file and in again, by a container that sees nothing else."""

import subprocess
from pathlib import Path

from manyeyes.cli.errors import CliError
from manyeyes.cli.process import CommandFailed, run

COPY_S = 1800.0


class Volumes:
    """Of one project. `image` is one that is there and has tar."""

    def __init__(self, project: str, image: str) -> None:
        self.project = project
        self._image = image

    def exists(self, volume: str) -> bool:
        try:
            run(["docker", "volume", "inspect", self.name(volume)], timeout_s=20)
        except CommandFailed:
            return False
        return True

    def name(self, volume: str) -> str:
        return f"{self.project}_{volume}"

    def save(self, volume: str, file: Path) -> None:
        """Raises Trouble."""
        with file.open("wb") as output:
            self._tar(volume, ":ro", ["-C", "/volume", "-cf", "-", "."], stdout=output)

    def put(self, volume: str, file: Path) -> None:
        """In place of what is in it; makes it where there is none, as Compose would. Raises Trouble."""
        labels = [f"com.docker.compose.project={self.project}", f"com.docker.compose.volume={volume}"]
        if not self.exists(volume):
            run(
                ["docker", "volume", "create", *(f"--label={label}" for label in labels), self.name(volume)],
                timeout_s=60,
            )
        empty_then_unpack = "find /volume -mindepth 1 -delete && exec tar -C /volume --numeric-owner -xpf -"
        with file.open("rb") as content:
            self._run(volume, "", ["/bin/sh", "-c", empty_then_unpack], stdin=content)

    def _tar(self, volume: str, how: str, arguments: list[str], **streams: object) -> None:
        self._run(volume, how, ["tar", "--numeric-owner", *arguments], **streams)

    def _run(self, volume: str, how: str, command: list[str], **streams: object) -> None:
        """As root with no more than files need: a volume's files belong to the users of its containers."""
        entrypoint, *arguments = command
        capabilities = ["CHOWN", "DAC_OVERRIDE", "FOWNER"]
        call = [
            "docker",
            "run",
            "--rm",
            "--interactive",
            "--network=none",
            "--user=0:0",
            "--read-only",
            "--cap-drop=ALL",
        ]
        call += [f"--cap-add={name}" for name in capabilities]
        call += [f"--volume={self.name(volume)}:/volume{how}", f"--entrypoint={entrypoint}", self._image, *arguments]
        ended = subprocess.run(call, stderr=subprocess.PIPE, timeout=COPY_S, check=False, **streams)  # type: ignore[call-overload]
        if ended.returncode:
            said = ended.stderr.decode(errors="replace").strip()
            raise CliError(
                f"the volume {self.name(volume)} could not be copied: {said.splitlines()[-1] if said else '?'}"
            )
