"""The adapter's environment, read once."""

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Settings:
    """Where to read and where to listen."""

    state: Path
    """The controller's state folder, read only: adapter.yaml in it says what to speak for."""
    secrets: Path
    """The secrets folder, read only."""
    host: str
    port: int
    """For /live; every endpoint has a port of its own besides."""

    @classmethod
    def from_environment(cls) -> "Settings":
        return cls(
            state=Path(os.environ.get("MANYEYES_STATE", "build/state")),
            secrets=Path(os.environ.get("MANYEYES_SECRETS", "secrets")),
            host=os.environ.get("MANYEYES_ADAPTER_HOST", "0.0.0.0"),
            port=int(os.environ.get("MANYEYES_ADAPTER_PORT", "9099")),
        )
