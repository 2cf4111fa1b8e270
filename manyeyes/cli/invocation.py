"""How a command was called (folder, configuration, through make or not), and how to print the next command to run."""

import os
import shlex
import shutil
from pathlib import Path

import typer

STARTED_IN = Path.cwd()
CALLED_BY_MAKE = "MANYEYES_CALLED_BY_MAKE"
"""Environment variable that the Makefile sets for every command."""
DEFAULT_CONFIG = Path("config/cluster.yaml")
MAKE_TARGETS = frozenset({"up", "down", "clean", "status", "logs", "doctor", "docker", "images", "check-config"})
"""Commands without arguments that are also targets of the Makefile."""


def enter_checkout(config: Path) -> Path:
    """Changes to the root of the checkout that contains the working folder, else `config`, else this program.

    Returns `config` relative to it. Modules that use the checkout's path must be imported after this call.
    """
    from manyeyes.config.checkout import SOURCE, find_checkout

    file = (STARTED_IN / config).resolve()
    root = find_checkout(STARTED_IN) or find_checkout(file.parent) or find_checkout(SOURCE)
    if root is None:
        raise typer.BadParameter(
            "This is not a checkout of ManyEyes. Run the command in a checkout, or name a file of a checkout."
        )
    os.chdir(root)
    from manyeyes.cli import env_file

    env_file.export_to_environment()
    if config == DEFAULT_CONFIG and not file.exists():
        return config
    return file.relative_to(root) if file.is_relative_to(root) else file


def next_command(action: str, *arguments: str, config: Path = DEFAULT_CONFIG) -> str:
    """Returns `make status CONFIG=my.yaml` or `manyeyes status --config my.yaml`, without the default configuration."""
    given = config != DEFAULT_CONFIG
    if action in MAKE_TARGETS and not arguments and os.environ.get(CALLED_BY_MAKE):
        return f"make {action}" + (f" CONFIG={shlex.quote(str(config))}" if given else "")
    return shlex.join([_program(), action, *arguments, *(["--config", str(config)] if given else [])])


def _program() -> str:
    """Returns how to call this program: `make` installs it in .venv, which may not be in the PATH."""
    return "manyeyes" if shutil.which("manyeyes") else ".venv/bin/manyeyes"
