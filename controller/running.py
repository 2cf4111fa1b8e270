"""What Compose runs: the rendered files that its containers were last started from. Pure.

Containers are started by `make up`, not by the controller: what is written there is what engines were told at their start.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from config.pools import Flavour

SERVED_NAMES = "--served-model-name"
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
        command = list(self.services[engine]["command"])
        names = command[command.index(SERVED_NAMES) + 1 :] if SERVED_NAMES in command else []
        end = next((place for place, word in enumerate(names) if word.startswith("--")), len(names))
        return frozenset(names[:end])


def read(engines_yaml: str | None, compose_env: str | None) -> Running | None:
    """None where nothing was rendered: the controller runs without Compose."""
    if engines_yaml is None:
        return None
    document = yaml.safe_load(engines_yaml) or {}
    services = {
        name: service
        for name, service in (document.get("services") or {}).items()
        if "manyeyes.engine" in service.get("labels", {})
    }
    return Running(services, environment(compose_env or ""))


def environment(text: str) -> dict[str, str]:
    """KEY=value lines."""
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#"))
