"""Files that a measurement leaves: lines of JSON as they come, documents whole or not at all."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

ROOT = Path(__file__).resolve().parents[1]


def append_line(file: Path, fields: object) -> None:
    """`fields`: a dictionary or a dataclass. Raises OSError when the disk is full."""
    with file.open("ab") as lines:
        lines.write(orjson.dumps(fields) + b"\n")


def read_lines(file: Path) -> Iterator[dict[str, Any]]:
    """All whole lines, in order; one that was cut off by a full disk or a kill is left out."""
    if not file.exists():
        return
    for line in file.read_bytes().splitlines():
        try:
            yield orjson.loads(line)
        except orjson.JSONDecodeError:
            continue


def write_document(file: Path, document: object) -> None:
    write_text(file, orjson.dumps(document, option=orjson.OPT_INDENT_2).decode())


def write_text(file: Path, text: str) -> None:
    """Raises OSError."""
    part = file.with_suffix(".part")
    part.write_text(text)
    part.replace(file)


def shown(path: Path) -> Path:
    """As people read it: from the checkout on where it is in there."""
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
