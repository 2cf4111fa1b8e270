"""What each model takes, from cluster.yaml: pictures in a request, pixels, frames, context. Read again when the file changes."""

from __future__ import annotations

from pathlib import Path

from manyeyes.config.loader import ConfigError, load
from manyeyes.config.pools import Media, Pool
from webui import log


class Caps:
    """Without a file, or with a model it does not name, the schema's own defaults count."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._read_ns = 0
        self._pools: tuple[Pool, ...] = ()

    def pool(self, model: str | None) -> Pool | None:
        """The pool that serves `model`; None where it is not told (`auto`, an endpoint elsewhere)."""
        self._look()
        return next((pool for pool in self._pools if model in pool.names), None)

    def media(self, model: str | None) -> Media:
        pool = self.pool(model)
        return pool.media if pool else Media()

    def _look(self) -> None:
        if self._path is None:
            return
        try:
            written_ns = self._path.stat().st_mtime_ns
            if written_ns != self._read_ns:
                self._read_ns = written_ns
                self._pools = load(self._path).pools
        except (OSError, ConfigError) as error:  # what was read before stays in force
            log.event("caps_not_read", path=str(self._path), error=str(error)[:300])
