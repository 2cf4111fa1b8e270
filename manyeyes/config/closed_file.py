"""Files with secrets: replaced in one step, never open to others for a moment, with the mode and the owner that they had."""

import contextlib
import os
import tempfile
from pathlib import Path

CONTAINER_USER = 10001
"""User and group of the controller's and the page's containers. They read the files of API keys and of users."""
ROOT = Path(__file__).resolve().parents[2]


def copy(path: Path, target: Path) -> None:
    """With the same mode, owner and group, as far as this process may."""
    replace(target, path.read_bytes(), path.stat().st_mode & 0o777, path)


def replace(path: Path, content: str | bytes, mode: int | None = None, like: Path | None = None) -> None:
    """A reader finds the old file or the new one. Without `mode` the mode stays as it was; a new file is 0600.

    Root leaves the file to its owner; a new one belongs to the owner of `like`, else of the folder.
    """
    old = (like or path).stat() if (like or path).exists() else None
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # 0600
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
        _belongs_to(temporary, old or path.parent.stat(), group=old is not None)
        temporary.chmod(mode if mode is not None else old.st_mode & 0o777 if old else 0o600)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _belongs_to(path: Path, wanted: os.stat_result, group: bool) -> None:
    """As far as this process may: only root gives a file to somebody else."""
    found = path.stat()
    if group and found.st_gid != wanted.st_gid:
        with contextlib.suppress(PermissionError):
            os.chown(path, -1, wanted.st_gid)
    if found.st_uid != wanted.st_uid and os.geteuid() == 0:
        os.chown(path, wanted.st_uid, -1)


def lets_in(path: Path, user: int, groups: tuple[int, ...], bits: int = 0o444) -> bool:
    """Whether one of the permission bits holds for this user, who is not root, with these groups."""
    found = path.stat()
    mode = found.st_mode & bits
    if found.st_uid == user:
        return bool(mode & 0o700)
    if found.st_gid in groups:
        return bool(mode & 0o070)
    return bool(mode & 0o007)


def read_by_containers(path: Path) -> bool:
    """Whether the controller and the page can read it: as their user, or by the group of the secrets folder."""
    return lets_in(path, CONTAINER_USER, (CONTAINER_USER, secrets_group()))


def hand_over(path: Path, new: bool = False) -> None:
    """Lets the controller and the page read a closed file, and nobody else.

    Root's own file is given to their user and keeps its mode. Any other owner keeps it; only a new file is opened to their group.
    """
    if read_by_containers(path):
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
