"""Files that list things by name, such as API keys and users: what is wrong with one in words, and writing one anew."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel
from pydantic_core import ErrorDetails

from manyeyes.atomic_write import atomic_write
from manyeyes.config import secret_files


def entry_place(error: ErrorDetails, document: Any, section: str) -> str:
    """('keys', 0, 'sha256') -> keys[alice].sha256: by the item's name where it has one. `section` is the list's key."""
    found = ""
    for step in error["loc"]:
        if isinstance(step, int):
            items = document.get(section) if isinstance(document, dict) else None
            item = items[step] if isinstance(items, list) and step < len(items) else None
            found += f"[{item.get('name', step) if isinstance(item, dict) else step}]"
        else:
            found += f".{step}" if found else step
    return found or "the file"


def describe_entry_error(error: ErrorDetails, item: type[BaseModel], wanted: Mapping[Any, str], section: str) -> str:
    """What was found is not shown: it may be a secret that somebody wrote where its hash belongs."""
    if error["type"] == "missing":
        return "is missing"
    if error["type"] == "extra_forbidden":
        return "is not a setting; there are " + ", ".join(item.model_fields)
    last = error["loc"][-1] if error["loc"] else ""
    if isinstance(last, int):
        return f"wants {', '.join(item.model_fields)}"
    return f"wants {wanted.get(last, f'`{section}:` and a list of {section}')}"


def find_repeated(names: Sequence[str], section: str) -> Iterator[str]:
    """One sentence for each name that stands there more than once."""
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"{section} has {names.count(name)} entries named '{name}'; names must differ"


def find_case_collisions(names: Sequence[str], section: str) -> Iterator[str]:
    """One sentence for each two names that differ in case only."""
    first: dict[str, str] = {}
    for name in dict.fromkeys(names):
        if (other := first.setdefault(name.lower(), name)) != name:
            yield f"{section}[{other}] and {section}[{name}] differ in case only; nginx takes them for one name, so choose another"


def write_entries(path: Path, head: str, document: Mapping[str, Any]) -> None:
    """`document` below the comment `head`, in one step: a reader finds the old file or the new one. Closed to others."""
    new = not path.exists()
    atomic_write(path, head + yaml.safe_dump(document, sort_keys=False))
    secret_files.grant_container_access(path, new=new)
