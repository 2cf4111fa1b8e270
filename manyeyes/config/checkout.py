"""The checkout that a command works on: the folder with compose.yaml that the command was started in, or below; and its secrets."""

import contextlib
import os
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


def from_checkout(path: Path) -> Path:
    """As people type it: from the checkout's root where it is inside."""
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path


CONTAINER_USER = 10001
"""User and group of the controller's and the page's containers. They read the files of API keys and of users."""


def has_access(path: Path, user: int, groups: tuple[int, ...], bits: int = 0o444) -> bool:
    """Whether one of the permission bits holds for this user, who is not root, with these groups."""
    found = path.stat()
    mode = found.st_mode & bits
    if found.st_uid == user:
        return bool(mode & 0o700)
    if found.st_gid in groups:
        return bool(mode & 0o070)
    return bool(mode & 0o007)


def is_readable_by_containers(path: Path) -> bool:
    """Whether the controller and the page can read it: as their user, or by the group of the secrets folder."""
    return has_access(path, CONTAINER_USER, (CONTAINER_USER, secrets_group()))


def grant_container_access(path: Path, new: bool = False) -> None:
    """Lets the controller and the page read a closed file, and nobody else.

    Root's own file is given to their user and keeps its mode. Any other owner keeps it; only a new file is opened to their group.
    """
    if is_readable_by_containers(path):
        return
    is_root, owner = os.geteuid() == 0, path.stat().st_uid
    if is_root and owner == 0:
        os.chown(path, CONTAINER_USER, CONTAINER_USER)
    elif new:
        with contextlib.suppress(PermissionError):
            os.chown(path, -1, CONTAINER_USER if is_root else secrets_group())
        path.chmod(0o640)


def secrets_folder() -> Path:
    """SECRETS_DIR, else secrets/ of this checkout."""
    return ROOT / (os.environ.get("SECRETS_DIR") or "secrets")


def secrets_group() -> int:
    """Of that folder. Compose gives it to the containers that read secrets."""
    folder = secrets_folder()
    return folder.stat().st_gid if folder.exists() else 101
