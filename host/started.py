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
from config.documents import DocumentError

NAME = "started.yaml"
HEAD = "# Written by `make up` and `make restart-rolling`: engines as their containers were started. Do not edit.\n"


def services(folder: Path) -> dict[str, Any]:
    """As they were started; empty before the first start."""
    return _services(folder / NAME)


def wanted(folder: Path) -> dict[str, Any]:
    """As they are rendered."""
    return _services(folder / "engines.yaml")


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
