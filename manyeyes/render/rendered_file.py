"""Formats rendered files (header, YAML) and writes them."""

from pathlib import Path
from typing import Any

import yaml

from manyeyes.atomic_write import atomic_write

HEADER = "Made by `make render` from config/cluster.yaml. Do not edit: the next `make up` overwrites it."
GATEWAY_HEADER = "Made by the controller from config/cluster.yaml. Do not edit: the next change overwrites it."


def with_header(text: str) -> str:
    """`text` after a comment line; for formats whose comments start with #."""
    return f"# {HEADER}\n{text}"


def with_gateway_header(text: str) -> str:
    """As with_header(), for a file that the controller writes for nginx."""
    return f"# {GATEWAY_HEADER}\n{text}"


def as_yaml(document: Any) -> str:
    """Block style, the given order of keys, no aliases, long lines unbroken."""
    return with_header(plain_yaml(document))


def plain_yaml(document: Any) -> str:
    """As as_yaml(), without the header."""
    return yaml.dump(document, Dumper=_PlainDumper, sort_keys=False, width=10_000, allow_unicode=True)


class _PlainDumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def write_files(files: dict[str, str], folder: Path, unchanged: frozenset[str] = frozenset()) -> list[str]:
    """Writes `files` and deletes every other file in `folder` except `unchanged`.

    Returns the names of the files that changed.
    """
    changed = []
    for name, text in files.items():
        path = folder / name
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        # Containers read it as other users, so the mode must not depend on the umask.
        path.parent.chmod(0o755)
        atomic_write(path, text, mode=0o644)
        changed.append(name)
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_file() and name not in files and name not in unchanged:
            path.unlink()
            changed.append(name)
    return changed
