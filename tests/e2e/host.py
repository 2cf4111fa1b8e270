"""A host as `make` and `manyeyes` see it: with a configuration, secrets and an .env file of a test's own."""

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WITHIN_S = 600


@dataclass(frozen=True)
class Host:
    config: Path
    """In a folder that all containers can read."""
    secrets: Path
    """Beside that folder."""
    env: Path
    more: Mapping[str, str] = field(default_factory=dict)
    """Further environment."""

    @classmethod
    def in_folder(cls, folder: Path, text: str) -> "Host":
        folder.chmod(0o755)
        made = cls(folder / "cluster.yaml", folder.with_name(f"{folder.name}-secrets"), folder / "env")
        made.secrets.mkdir(mode=0o750, exist_ok=True)
        made.config.write_text(text)
        return made

    def start(self, *command: str) -> subprocess.Popen[str]:
        environment = {"MANYEYES_ENV_FILE": str(self.env), "SECRETS_DIR": str(self.secrets), **self.more}
        return subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, **environment}, text=True, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def start_manyeyes(self, command: str, *more: str) -> subprocess.Popen[str]:
        return self.start(sys.executable, "-m", "manyeyes.cli", command, *more, "--config", str(self.config))

    def manyeyes(self, command: str, *more: str) -> tuple[int, str]:
        """(exit code, what it printed)."""
        return _ended(self.start_manyeyes(command, *more))

    def make(self, target: str, *more: str) -> tuple[int, str]:
        return _ended(self.start("make", target, f"CONFIG={self.config}", *more))


def _ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    output, _ = process.communicate(timeout=WITHIN_S)
    return process.returncode, output
