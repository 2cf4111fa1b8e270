"""A folder on a disk with no room left."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def full_disk(folder: Path) -> Iterator[None]:
    """Until the end, new files can be made in `folder` and nothing can be written to them. Skips where it may not mount."""
    if os.geteuid() != 0:
        pytest.skip("only root mounts a full disk")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k", "full_disk", str(folder)], check=True)
    try:
        (folder / "full").write_bytes(bytes(4096))
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
