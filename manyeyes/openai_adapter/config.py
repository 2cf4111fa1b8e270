"""What the adapter speaks for, as the controller keeps it in the state folder (manyeyes/controller/registry/adapter_config_writer.py)."""

import os
from dataclasses import dataclass
from pathlib import Path

import structlog
from pydantic import ValidationError

from manyeyes.config import documents
from manyeyes.config.base import Name, Port, Section
from manyeyes.config.custom_endpoint import Adapter, Endpoint
from manyeyes.config.documents import DocumentError


@dataclass(frozen=True)
class AdapterSettings:
    """Where to read and where to listen."""

    state: Path
    """The controller's state folder, read only: adapter.yaml in it says what to speak for."""
    secrets: Path
    """The secrets folder, read only."""
    host: str
    port: int
    """For /live; every endpoint has a port of its own besides."""

    @classmethod
    def from_environment(cls) -> "AdapterSettings":
        return cls(
            state=Path(os.environ.get("MANYEYES_STATE", "build/state")),
            secrets=Path(os.environ.get("MANYEYES_SECRETS", "secrets")),
            host=os.environ.get("MANYEYES_ADAPTER_HOST", "0.0.0.0"),
            port=int(os.environ.get("MANYEYES_ADAPTER_PORT", "9099")),
        )


log = structlog.get_logger()


class AdaptedEngine(Section):
    """One engine that the adapter stands for."""

    name: Name
    port: Port
    pool: Name
    model: str
    names: tuple[str, ...]
    endpoint: Endpoint


class AdapterConfig(Section):
    """The whole document."""

    max_body_mb: int
    limits: Adapter
    engines: tuple[AdaptedEngine, ...]


class ConfigReader:
    """Looks whether the document changed: by its file, so that it works on every kind of volume."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "adapter.yaml"
        self._seen: tuple[int, int, int] | None = None
        self._told = ""

    def changed(self) -> AdapterConfig | None:
        """The document when it is another one than last time. One that cannot be used is told once, and the last one stays."""
        seen = self._seen
        try:
            found = self.file.stat()
            seen = (found.st_ino, found.st_mtime_ns, found.st_size)
            if seen == self._seen:
                return None
            book = AdapterConfig.model_validate(documents.read(self.file))
        except FileNotFoundError:
            return None
        except (OSError, DocumentError, ValidationError) as error:
            reason = " ".join(str(error).split())[:500]
            if seen == self._seen and reason == self._told:
                return None
            self._seen, self._told = seen, reason
            log.error("book_unusable", file=str(self.file), reason=reason)
            return None
        self._seen = seen
        return book
