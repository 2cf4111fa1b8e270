"""Replaces files atomically: a reader sees either the old or the new content, and permissions are never widened."""

import contextlib
import os
import tempfile
from pathlib import Path


def atomic_write(
    path: Path, content: str | bytes, mode: int | None = None, like: Path | None = None, fsync: bool = False
) -> None:
    """Writes a temporary file in the same folder and renames it. Raises OSError; `path` is then unchanged.

    Without `mode`, an existing file keeps its mode, and a new file gets 0600. As root, an existing file keeps its
    owner, and a new file gets the owner of `like`, else of the folder. With `fsync`, content and name are on disk when
    this returns.
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
    """Copies a file with its mode, and with its owner and group if this process has the permission."""
    atomic_write(target, source.read_bytes(), source.stat().st_mode & 0o777, source)


def sync_folder(folder: Path) -> None:
    """Flushes the directory entries of a folder to disk. Raises OSError."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _change_owner(path: Path, target: os.stat_result, group: bool) -> None:
    """Changes owner and group if this process has the permission. Only root can change the owner."""
    current = path.stat()
    if group and current.st_gid != target.st_gid:
        with contextlib.suppress(PermissionError):
            os.chown(path, -1, target.st_gid)
    if current.st_uid != target.st_uid and os.geteuid() == 0:
        os.chown(path, target.st_uid, -1)
