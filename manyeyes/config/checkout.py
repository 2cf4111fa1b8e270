"""The checkout that a command works on: the folder with compose.yaml that the command was started in, or below."""

from pathlib import Path

SOURCE = Path(__file__).resolve().parents[2]
"""Where this package lies: a checkout, the root of a container image, or the site-packages of `pip install`."""


def find_checkout(start: Path) -> Path | None:
    """The nearest of `start` and its parents that is a checkout of ManyEyes."""
    for folder in (start, *start.parents):
        if (folder / "compose.yaml").is_file() and (folder / "manyeyes").is_dir():
            return folder
    return None


ROOT = find_checkout(Path.cwd()) or SOURCE
