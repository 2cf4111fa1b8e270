"""What Compose runs: the rendered files that its containers were last started from. Pure.

Containers are started by `make up`, not by the controller: what is written there is what engines were told at their start.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from config import documents
from config.documents import DocumentError
from config.pools import Flavour
from config.routes import AUTO
from engine.flags import TINY_DIR, where_served_names

STARTED = "started.yaml"
"""Beside the rendered files: as engines.yaml, with each engine as its container was really started."""


@dataclass(frozen=True)
class Running:
    """Services of engines by the engine's name, as rendered, and the values of compose.env."""

    services: Mapping[str, Mapping[str, Any]]
    environment: Mapping[str, str]

    def pool_of(self, engine: str) -> str:
        return str(self.services[engine]["labels"]["manyeyes.pool"])

    def flavour_of(self, engine: str) -> Flavour:
        flavour: Flavour = self.services[engine]["labels"]["manyeyes.flavour"]
        return flavour

    def names_of(self, engine: str) -> frozenset[str]:
        """Every `model` that the engine accepts."""
        return frozenset(self._names(engine))

    def model_of(self, engine: str) -> str | None:
        """The model that it has loaded, as a pool's `model`; None where its command does not tell."""
        command = [str(word) for word in self.services[engine]["command"]]
        if command and not command[0].startswith("-"):
            return {TINY_DIR: "tiny"}.get(command[0], self._mounted(engine).get(command[0], command[0]))
        # An emulated engine has the model's id among its names only, after its pool's (config/pools.py).
        return next((name for name in self._names(engine)[1:2] if name != AUTO), None)

    def _names(self, engine: str) -> list[str]:
        command = list(self.services[engine]["command"])
        return command[where_served_names(command)]

    def _mounted(self, engine: str) -> dict[str, str]:
        """Folders of this host by where they are in the container."""
        return {str(one["target"]): str(one["source"]) for one in self.services[engine].get("volumes", ())}


class Unknown(ValueError):
    """The files do not say what runs; the message says why."""


def read(engines_yaml: str | None, compose_env: str | None) -> Running | None:
    """None where nothing was rendered: the controller runs without Compose. Raises Unknown and nothing else."""
    if engines_yaml is None:
        return None
    try:
        document = documents.parse(engines_yaml)
    except DocumentError as error:
        raise Unknown(str(error)) from error
    found = document.get("services") if isinstance(document, dict) else document
    if not isinstance(document, dict | None) or not isinstance(found, dict | None):
        raise Unknown("it wants a mapping of services")
    services = {}
    for name, service in (found or {}).items():
        if not isinstance(service, dict):
            raise Unknown(f"services.{str(name)[:60]} wants a mapping")
        labels = service.get("labels", {})
        if not isinstance(labels, dict):
            raise Unknown(f"services.{str(name)[:60]}.labels wants a mapping")
        if "manyeyes.engine" not in labels:
            continue
        command = service.get("command")
        flavour = labels.get("manyeyes.flavour")
        if not isinstance(command, list) or not all(isinstance(word, str) for word in command):
            raise Unknown(f"services.{str(name)[:60]}.command wants a list of words")
        if not isinstance(name, str) or "manyeyes.pool" not in labels or flavour not in get_args(Flavour):
            raise Unknown(f"services.{str(name)[:60]}.labels wants manyeyes.pool and manyeyes.flavour")
        services[name] = service
    return Running(services, environment(compose_env or ""))


def environment(text: str) -> dict[str, str]:
    """KEY=value lines."""
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#"))
