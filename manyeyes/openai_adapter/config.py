"""Reads the adapter's environment and its engines, which the controller writes to the state folder.

See manyeyes/controller/registry/registrations.py.
"""

from pathlib import Path

import structlog
from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from manyeyes.config import documents
from manyeyes.config.custom_endpoint import Adapter, Endpoint
from manyeyes.config.documents import DocumentError
from manyeyes.config.fields import Name, Port, Section

log = structlog.get_logger()


class AdapterSettings(BaseSettings):
    """The environment variables: folders and addresses."""

    model_config = SettingsConfigDict(env_prefix="MANYEYES_", env_ignore_empty=True, frozen=True)

    state: Path = Path("build/state")
    """The controller's state folder, read-only. Its adapter.yaml lists the endpoints."""
    secrets: Path = Path("secrets")
    """The secrets folder, read-only."""
    host: str = Field("0.0.0.0", validation_alias="MANYEYES_ADAPTER_HOST")
    port: int = Field(9099, validation_alias="MANYEYES_ADAPTER_PORT")
    """Port for /live. Every endpoint has a separate port."""


class AdaptedEngine(Section):
    """One engine that the adapter serves."""

    name: Name
    port: Port
    pool: Name
    model: str
    names: tuple[str, ...]
    endpoint: Endpoint


class AdapterConfig(Section):
    """The content of adapter.yaml."""

    max_body_mb: int
    limits: Adapter
    engines: tuple[AdaptedEngine, ...]


class ConfigReader:
    """Detects changes of adapter.yaml by polling its file status, which works on every kind of volume."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "adapter.yaml"
        self._seen: tuple[int, int, int] | None = None
        self._reported = ""

    def changed(self) -> AdapterConfig | None:
        """The configuration if it changed, else None.

        An invalid file is logged once, and the previous configuration stays active.
        """
        seen = self._seen
        try:
            status = self.file.stat()
            seen = (status.st_ino, status.st_mtime_ns, status.st_size)
            if seen == self._seen:
                return None
            book = AdapterConfig.model_validate(documents.read(self.file))
        except FileNotFoundError:
            return None
        except (OSError, DocumentError, ValidationError) as error:
            reason = " ".join(str(error).split())[:500]
            if seen == self._seen and reason == self._reported:
                return None
            self._seen, self._reported = seen, reason
            log.error("adapter_config_invalid", file=str(self.file), reason=reason)
            return None
        self._seen = seen
        return book
