"""Replaces a file in one step: a reader finds the old content or the new one, and never a file that is open to more users than before."""

import contextlib
import os
import tempfile
from pathlib import Path


def atomic_write(
    path: Path, content: str | bytes, mode: int | None = None, like: Path | None = None, fsync: bool = False
) -> None:
    """Writes a temporary file beside `path` and renames it. Raises OSError, and then `path` is as it was.

    Without `mode` the file keeps its mode; a new one is 0600. Root leaves the file to its owner; a new one belongs to the owner of
    `like`, else of the folder. `fsync`: the content and the name are on disk when this returns, also for a power cut.
    """
    old = (like or path).stat() if (like or path).exists() else None
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # 0600
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            if fsync:
                file.flush()
                os.fsync(file.fileno())
        _change_owner(temporary, old or path.parent.stat(), group=old is not None)
        temporary.chmod(mode if mode is not None else old.st_mode & 0o777 if old else 0o600)
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    if fsync:
        sync_folder(path.parent)


def atomic_copy(source: Path, target: Path) -> None:
    """With the same mode, owner and group, as far as this process may."""
    atomic_write(target, source.read_bytes(), source.stat().st_mode & 0o777, source)


def sync_folder(folder: Path) -> None:
    """Puts the names in a folder on disk. Raises OSError."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _change_owner(path: Path, wanted: os.stat_result, group: bool) -> None:
    """As far as this process may: only root gives a file to somebody else."""
    found = path.stat()
    if group and found.st_gid != wanted.st_gid:
        with contextlib.suppress(PermissionError):
            os.chown(path, -1, wanted.st_gid)
    if found.st_uid != wanted.st_uid and os.geteuid() == 0:
        os.chown(path, wanted.st_uid, -1)
