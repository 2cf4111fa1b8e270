"""Where a command works: at the root of its checkout, whatever folder it was started in."""

import os
from pathlib import Path

import typer

from manyeyes.cli.next_command import DEFAULT_CONFIG

STARTED_IN = Path.cwd()


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
