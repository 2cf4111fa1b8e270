"""What the proof measures on: something that can be brought to a number of engines. One small protocol, two kinds."""

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


class NoCluster(Exception):
    """The cluster could not be brought to that number of engines; the text says why and what to do."""


class Running(Protocol):
    """A cluster with its number of engines up. `busy_s`: how long each engine's GPU has worked so far; none where nobody
    can tell. `died`: how often an engine has ended by itself."""

    url: str
    key: str
    trusted: str

    def busy_s(self) -> dict[str, float]: ...
    def died(self) -> int: ...
    def set_memory_limit(self, on: bool) -> None: ...


@dataclass(frozen=True)
class Kind:
    """For the page. `slowdown`: wall seconds per second of the engines' clock."""

    name: str
    gpu: str
    model: str
    emulated: bool
    slowdown: float
    about: dict[str, Any]


class Cluster(Protocol):
    kind: Kind

    def at(self, count: int, folder: Path) -> contextlib.AbstractContextManager[Running]: ...
    def leave(self) -> str:
        """Everything as it was before the first visit; returns a sentence where that could not be."""
