"""The page's title and greeting as cluster.yaml has them at the moment: a new visit sees a change, without a restart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from webui import settings
from webui.settings import Settings, SettingsError


@dataclass(frozen=True)
class Texts:
    title: str
    greeting: str


class CurrentTexts:
    """Reads the file at every visit, and parses it when something else stands in it. While it is wrong the last texts stay."""

    def __init__(self, begin: Settings, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._last = Texts(begin.title, begin.greeting)
        self._path = Path(config) if (config := environ.get("MANYEYES_CONFIG", "").strip()) else None
        self._seen = self._read()

    def __call__(self) -> Texts:
        """The texts for a visit that begins now."""
        if (found := self._read()) != self._seen:
            self._seen = found
            try:
                current = settings.read(self._environ)
            except SettingsError:
                return self._last
            self._last = Texts(current.title, current.greeting)
        return self._last

    def _read(self) -> bytes:
        try:
            return self._path.read_bytes() if self._path else b""
        except OSError:
            return b""
