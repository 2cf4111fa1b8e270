"""Which definition each engine's container was really started with: started.yaml beside the rendered files.

Rendered files say what is wanted; while engines are restarted one by one, some run on what was wanted before. The controller
reads it (controller/running.py).
"""

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from config import documents
from config.cluster import Cluster
from config.documents import DocumentError
from config.load import ConfigError, load
from engine.flags import where_served_names
from host.command import ROOT
from host.terminal import attention

NAME = "started.yaml"
CONFIGURATION = "configuration.yaml"
"""A copy of what `make up` was given."""
NAMED_AFTER_POOL = ("manyeyes.pool", "MANYEYES_POOL", "OTEL_RESOURCE_ATTRIBUTES")
"""Labels and environment that only say in logs, metrics and traces what the pool is called."""
HEAD = "# Written by `make up` and `make restart-rolling`: engines as their containers were started. Do not edit.\n"


def configuration(config: Path) -> Cluster:
    """As the file is; where that is wrong, as the cluster that runs was started with it: looking and stopping work in any case.

    Raises ConfigError where nothing was started with it.
    """
    return load(written(config))


def written(config: Path) -> Path:
    """The file, or the copy that `make up` made of it where it is wrong by now. Raises ConfigError."""
    try:
        load(config)
    except ConfigError as error:
        for folder in sorted((ROOT / "rendered").glob("host-*")):
            if (folder / CONFIGURATION).exists() and _is_of(folder, config):
                for problem in error.problems:
                    attention(f"{config}: {problem}")
                attention(f"{config} is wrong: the configuration that the cluster was started with is taken")
                return folder / CONFIGURATION
        raise
    return config


def _is_of(folder: Path, config: Path) -> bool:
    """Whether it was rendered from this file."""
    try:
        lines = (folder / "compose.env").read_text(encoding="utf-8").splitlines()
    except OSError:
        return False
    values = dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    return (ROOT / values.get("CONFIG_DIR", "") / values.get("CONFIG_NAME", "")).resolve() == config.resolve()


def services(folder: Path) -> dict[str, Any]:
    """As they were started; empty before the first start."""
    return _services(folder / NAME)


def wanted(folder: Path) -> dict[str, Any]:
    """As they are rendered."""
    return _services(folder / "engines.yaml")


def differ_in_names_only(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two definitions of an engine are the same but for the names that it and its pool have: the gateway translates those."""
    return _without_names(one) == _without_names(other)


def _without_names(service: dict[str, Any]) -> dict[str, Any]:
    kept = dict(service)
    command = [str(word) for word in service.get("command", ())]
    del command[where_served_names(command)]
    kept["command"] = command
    for key in ("labels", "environment"):
        kept[key] = {name: value for name, value in service.get(key, {}).items() if name not in NAMED_AFTER_POOL}
    return kept


def note(folder: Path, names: Iterable[str]) -> None:
    """`names` were started as they are rendered."""
    is_wanted = wanted(folder)
    _write(folder, services(folder) | {name: is_wanted[name] for name in names if name in is_wanted})


def forget_others(folder: Path, names: Iterable[str]) -> None:
    """Only `names` have a container."""
    kept = set(names)
    _write(folder, {name: service for name, service in services(folder).items() if name in kept})


def _services(path: Path) -> dict[str, Any]:
    """Empty also where the file is damaged: the next start writes it anew, and until then nothing is known of what runs."""
    try:
        document = documents.read(path)
        found = document.get("services") if document is not None else None
        return {str(name): service for name, service in (found or {}).items() if isinstance(service, dict)}
    except FileNotFoundError:
        return {}
    except (DocumentError, AttributeError) as error:
        print(f"{path} cannot be used and is taken for empty: {error}. `make up` writes it anew.", file=sys.stderr)
        return {}


def _write(folder: Path, kept: dict[str, Any]) -> None:
    temporary = folder / f"{NAME}.new"
    with temporary.open("w", encoding="utf-8") as file:
        file.write(HEAD + yaml.safe_dump({"services": kept}, sort_keys=False))
        file.flush()
        os.fsync(file.fileno())  # a power cut must not leave an empty file under the new name
    temporary.chmod(0o644)
    temporary.replace(folder / NAME)
