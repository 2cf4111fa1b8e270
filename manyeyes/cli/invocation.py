"""How a command was called: in which folder, on which configuration, by make or by name; and how the next one is written."""

import os
import shlex
import shutil
from pathlib import Path

import typer

STARTED_IN = Path.cwd()
CALLED_BY_MAKE = "MANYEYES_CALLED_BY_MAKE"
"""The Makefile sets it for every command."""
DEFAULT_CONFIG = Path("config/cluster.yaml")
MAKE_TARGETS = frozenset({"up", "down", "clean", "status", "logs", "doctor", "docker", "images", "check-config"})
"""Those that need no argument, so that they are written alike."""


def enter_checkout(config: Path) -> Path:
    """Goes to the root of the checkout that holds the working folder, else `config`, else this program.

    Returns `config` from there. Modules with paths are imported after this.
    """
    from manyeyes.config.checkout import SOURCE, find_checkout

    file = (STARTED_IN / config).resolve()
    root = find_checkout(STARTED_IN) or find_checkout(file.parent) or find_checkout(SOURCE)
    if root is None:
        raise typer.BadParameter("No checkout of ManyEyes is here. Start this in one, or name a file of one.")
    os.chdir(root)
    from manyeyes.cli import env_file

    env_file.adopt()
    if config == DEFAULT_CONFIG and not file.exists():
        return config
    return file.relative_to(root) if file.is_relative_to(root) else file


def next_command(action: str, *arguments: str, config: Path = DEFAULT_CONFIG) -> str:
    """`make status CONFIG=my.yaml` or `manyeyes status --config my.yaml`; the configuration is named only where it is not the default."""
    given = config != DEFAULT_CONFIG
    if action in MAKE_TARGETS and not arguments and os.environ.get(CALLED_BY_MAKE):
        return f"make {action}" + (f" CONFIG={shlex.quote(str(config))}" if given else "")
    return shlex.join([_program(), action, *arguments, *(["--config", str(config)] if given else [])])


def _program() -> str:
    """`make` puts it where perhaps no PATH leads."""
    return "manyeyes" if shutil.which("manyeyes") else ".venv/bin/manyeyes"
