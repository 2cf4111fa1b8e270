"""How the next command is written for the person who reads it: by make or by name, with the configuration that was given."""

import os
import shlex
import shutil
from pathlib import Path

CALLED_BY_MAKE = "MANYEYES_CALLED_BY_MAKE"
"""The Makefile sets it for every command."""
DEFAULT_CONFIG = Path("config/cluster.yaml")
MAKE_TARGETS = frozenset({"up", "down", "clean", "status", "logs", "doctor", "docker", "images", "check-config"})
"""Those that need no argument, so that they are written alike."""


def next_command(action: str, *arguments: str, config: Path = DEFAULT_CONFIG) -> str:
    """`make status CONFIG=my.yaml` or `manyeyes status --config my.yaml`; the configuration is named only where it is not the default."""
    given = config != DEFAULT_CONFIG
    if action in MAKE_TARGETS and not arguments and os.environ.get(CALLED_BY_MAKE):
        return f"make {action}" + (f" CONFIG={shlex.quote(str(config))}" if given else "")
    return shlex.join([_program(), action, *arguments, *(["--config", str(config)] if given else [])])


def _program() -> str:
    """`make` puts it where perhaps no PATH leads."""
    return "manyeyes" if shutil.which("manyeyes") else ".venv/bin/manyeyes"
