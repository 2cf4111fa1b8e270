"""Result files of measurements: JSON lines that are appended, and documents that are written atomically."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

ROOT = Path(__file__).resolve().parents[1]


def append_line(file: Path, fields: object) -> None:
    """Appends one JSON line. `fields`: a dictionary or a dataclass. Raises OSError, for example if the disk is full."""
    with file.open("ab") as lines:
        lines.write(orjson.dumps(fields) + b"\n")


def read_lines(file: Path) -> Iterator[dict[str, Any]]:
    """Yields all complete lines in order; skips a line that a full disk or a kill cut off."""
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
    """Writes the file atomically. Raises OSError."""
    part = file.with_suffix(".part")
    part.write_text(text)
    part.replace(file)


def shown(path: Path) -> Path:
    """The path to display: relative to the checkout if it is inside it."""
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
