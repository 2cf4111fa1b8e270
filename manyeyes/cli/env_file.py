"""Reads and writes the .env file of Docker Compose: the operator's lines, and a small block that `make up` writes.

python-dotenv reads the file. Its set_key() is not used for writing: it would replace an operator's line with the same
name, which `make down` could not restore, and it changes the file's owner and group.
"""

import os
from pathlib import Path

from dotenv import dotenv_values

from manyeyes.atomic_write import atomic_write
from manyeyes.config.checkout import ROOT

BEGIN = "# --- written by `make up`: the project of this host; `make down` removes it ---"
END = "# --- end ---"
PATH = ROOT / os.environ.get("MANYEYES_ENV_FILE", ".env")


def read(path: Path = PATH) -> dict[str, str]:
    """Returns the values as Compose reads them, without interpolating variables; empty if the file does not exist."""
    return {key: value for key, value in dotenv_values(path, interpolate=False).items() if value is not None}


def export_to_environment(path: Path = PATH) -> None:
    """Adds the values, such as CA_CERTIFICATES, to this process's environment. Existing variables are not changed."""
    for key, value in read(path).items():
        os.environ.setdefault(key, value)


def write_block(values: dict[str, str], path: Path = PATH) -> None:
    """Replaces the block of `make up` with `values`. Without values it removes the block, and an otherwise empty
    file."""
    operator_text = _without_block(path.read_text(encoding="utf-8") if path.exists() else "")
    block = "\n".join([BEGIN, *(f"{key}={value}" for key, value in values.items()), END, ""]) if values else ""
    text = (operator_text.rstrip("\n") + "\n" if operator_text.strip() else "") + block
    if text:
        atomic_write(path, text)  # it may contain HF_TOKEN and passwords, so its permissions must not change
    else:
        path.unlink(missing_ok=True)


def own_lines(path: Path = PATH) -> str:
    """Returns the operator's lines."""
    return _without_block(path.read_text(encoding="utf-8")) if path.exists() else ""


def _without_block(text: str) -> str:
    before, begin, rest = text.partition(BEGIN)
    return before + rest.partition(END)[2].lstrip("\n") if begin else text
