"""Finds the checkout that a command works on, and its secrets folder.

A checkout is the nearest folder with a compose.yaml, from the working folder upwards.
"""

import contextlib
import os
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[2]
"""The folder that contains this package: a checkout, the root of a container image, or site-packages."""


def find_checkout(start: Path) -> Path | None:
    """Returns the nearest checkout of ManyEyes among `start` and its parents."""
    for folder in (start, *start.parents):
        if (folder / "compose.yaml").is_file() and (folder / "manyeyes").is_dir():
            return folder
    return None


ROOT = find_checkout(Path.cwd()) or SOURCE


def from_checkout(path: Path) -> Path:
    """Returns the path relative to the checkout's root if it is inside, else unchanged."""
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path


CONTAINER_USER = 10001
"""User and group of the controller and web page containers, which read the API keys file and the users file."""


def has_access(path: Path, user: int, groups: tuple[int, ...], bits: int = 0o444) -> bool:
    """Whether a non-root user with these groups has one of the permission bits on `path`."""
    status = path.stat()
    mode = status.st_mode & bits
    if status.st_uid == user:
        return bool(mode & 0o700)
    if status.st_gid in groups:
        return bool(mode & 0o070)
    return bool(mode & 0o007)


def is_readable_by_containers(path: Path) -> bool:
    """Whether the controller and the web page can read it, as their user or through the secrets folder's group."""
    return has_access(path, CONTAINER_USER, (CONTAINER_USER, secrets_group()))


def grant_container_access(path: Path, is_new: bool = False) -> None:
    """Lets the controller and the web page, and no other user, read a private file.

    A file of root changes owner to the container user and its mode is unchanged. A file of another user is changed
    only when it is new: the containers' group may then read it.
    """
    if is_readable_by_containers(path):
        return
    is_root, owner = os.geteuid() == 0, path.stat().st_uid
    if is_root and owner == 0:
        os.chown(path, CONTAINER_USER, CONTAINER_USER)
    elif is_new:
        with contextlib.suppress(PermissionError):
            os.chown(path, -1, CONTAINER_USER if is_root else secrets_group())
        path.chmod(0o640)


PAGE_KEY = "page.key"
"""File of the secrets folder with the key that opens the gateway's internal port to the page."""


def secrets_folder() -> Path:
    """Returns SECRETS_DIR, or secrets/ in this checkout."""
    return ROOT / (os.environ.get("SECRETS_DIR") or "secrets")


def secrets_group() -> int:
    """Returns the secrets folder's group. Compose adds it to the containers that read secrets."""
    folder = secrets_folder()
    return folder.stat().st_gid if folder.exists() else 101
