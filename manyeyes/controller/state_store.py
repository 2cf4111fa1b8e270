"""Persists the controller's state as YAML documents in the state folder. Each write is atomic and synced to disk.

After a kill -9 or a power cut, a document has either its old or its new content. An unreadable document is renamed and
the reason is logged. On a full or missing disk the change is not persisted, but the service continues.
"""

import asyncio
import contextlib
import copy
import re
from concurrent.futures import Future
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog
import yaml

from manyeyes.atomic_write import atomic_write, sync_folder
from manyeyes.config import documents
from manyeyes.config.documents import DocumentError
from manyeyes.controller.disk_writer import DiskWriter

log = structlog.get_logger()
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,100}")


class StateStore:
    """Documents in one folder, by name: `engines/gpu-9` is the file engines/gpu-9.yaml."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.writer: DiskWriter | None = None
        """While it is set, `write_later` does not wait for the disk."""

    def read(self, name: str) -> Any:
        """Reads the document; None when there is none. A corrupt document is renamed."""
        path = self._path(name)
        try:
            return documents.read(path)
        except FileNotFoundError:
            return None
        except DocumentError as error:
            self.set_aside(name, str(error))
            return None

    def names(self, folder: str) -> list[str]:
        """The names of all documents in a subfolder, sorted, as `read` expects them."""
        document_names = []
        with contextlib.suppress(OSError):
            for path in (self.folder / folder).glob("*.yaml"):
                # Other names were not written by this class, and some are not printable.
                if NAME.fullmatch(path.stem):
                    document_names.append(f"{folder}/{path.stem}")
        return sorted(document_names)

    def write(self, name: str, document: Any) -> bool:
        """Replaces the document. Returns False and logs the reason when the write fails."""
        path = self._path(name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
            atomic_write(path, text, mode=0o644, fsync=True)
        except (OSError, ValueError, yaml.YAMLError) as error:
            log.error("state_write_failed", document=name, error=str(error))
            return False
        return True

    def write_later(self, name: str, document: Any) -> Future[bool]:
        """Same as `write`, after all earlier calls and without waiting for the disk. `document` is copied."""
        if self.writer is not None:
            copied = copy.deepcopy(document)
            return self.writer.submit(name, lambda: self.write(name, copied))
        done: Future[bool] = Future()
        done.set_result(self.write(name, document))
        return done

    async def flush(self, timeout_s: float) -> None:
        """Waits until all writes are done, at most for `timeout_s`."""
        if self.writer is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.wrap_future(self.writer.submit("", lambda: True)), timeout_s)

    def remove(self, name: str) -> bool:
        """Deletes the document if it exists. Returns False and logs the reason when that fails."""
        path = self._path(name)
        try:
            path.unlink(missing_ok=True)
            if path.parent.exists():
                sync_folder(path.parent)
        except OSError as error:
            log.error("state_write_failed", document=name, error=str(error))
            return False
        return True

    def restore(self, name: str, former: Any) -> bool:
        """Restores the content that `read` returned before a change; None means that there was no document."""
        return self.remove(name) if former is None else self.write(name, former)

    def set_aside(self, name: str, reason: str) -> None:
        """Renames an unusable document, so that an operator can inspect it, and logs the reason."""
        path = self._path(name)
        aside = path.with_name(f"{path.name}.{datetime.now(UTC):%Y%m%d-%H%M%S}.bad")
        try:
            path.replace(aside)
        except OSError as error:
            reason = f"{reason}; and it cannot be renamed: {error}"
        log.error("state_set_aside", document=name, moved_to=str(aside), reason=reason)

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.yaml"
