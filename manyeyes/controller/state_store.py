"""What must outlive the controller: YAML documents in the state folder, each replaced at once and synced to disk.

A document is the old one or the new one at any instant, also after a kill -9 or a power cut. One that cannot be read is set
aside under another name and the reason told; a full or missing disk costs the memory of this change, never the service.
"""

import contextlib
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog
import yaml

from manyeyes.atomic_write import atomic_write, sync_folder
from manyeyes.config import documents
from manyeyes.config.documents import DocumentError

log = structlog.get_logger()
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,100}")


class StateStore:
    """Documents in one folder, by name: `engines/gpu-9` is the file engines/gpu-9.yaml."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, name: str) -> Any:
        """The document, or None where there is none. A corrupt one is set aside."""
        path = self._path(name)
        try:
            return documents.read(path)
        except FileNotFoundError:
            return None
        except DocumentError as error:
            self.set_aside(name, str(error))
            return None

    def names(self, folder: str) -> list[str]:
        """The documents in one folder of it, as `read` takes them, sorted."""
        found = []
        with contextlib.suppress(OSError):
            for path in (self.folder / folder).glob("*.yaml"):
                # Any other name is not one that was written here, and some cannot even be printed.
                if NAME.fullmatch(path.stem):
                    found.append(f"{folder}/{path.stem}")
        return sorted(found)

    def write(self, name: str, document: Any) -> bool:
        """Replaces the document. False, with the reason in the log, when the disk does not take it."""
        path = self._path(name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
            atomic_write(path, text, mode=0o644, fsync=True)
        except (OSError, ValueError, yaml.YAMLError) as error:
            log.error("state_write_failed", document=name, error=str(error))
            return False
        return True

    def remove(self, name: str) -> bool:
        """Takes the document away, if it is there. False when the disk refuses."""
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
        """Puts back what `read` said before a change: None where there was no such document."""
        return self.remove(name) if former is None else self.write(name, former)

    def set_aside(self, name: str, reason: str) -> None:
        """Moves a document that cannot be used out of the way, so that a person can look at it."""
        path = self._path(name)
        aside = path.with_name(f"{path.name}.{datetime.now(UTC):%Y%m%d-%H%M%S}.bad")
        try:
            path.replace(aside)
        except OSError as error:
            reason = f"{reason}; and it cannot be set aside: {error}"
        log.error("state_set_aside", document=name, moved_to=str(aside), reason=reason)

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.yaml"
