"""The .env file that Docker Compose reads: the user's own lines, and a block of few that `make up` writes.

python-dotenv reads it. Its set_key() does not write it: that would replace a user's line of the same name, which `make down` could
not bring back, and it keeps neither the file's owner nor its group.
"""

import os
from pathlib import Path

from dotenv import dotenv_values

from manyeyes.atomic_write import atomic_write
from manyeyes.config.checkout import ROOT

BEGIN = "# --- kept by `make up`: what this host runs; `make down` removes it ---"
END = "# --- end ---"
PATH = ROOT / os.environ.get("MANYEYES_ENV_FILE", ".env")


def read(path: Path = PATH) -> dict[str, str]:
    """As Compose reads it, but without variables in values; empty where there is no such file."""
    return {key: value for key, value in dotenv_values(path, interpolate=False).items() if value is not None}


def adopt(path: Path = PATH) -> None:
    """CA_CERTIFICATES and the like may be set in it; the environment wins."""
    for key, value in read(path).items():
        os.environ.setdefault(key, value)


def write_block(values: dict[str, str], path: Path = PATH) -> None:
    """Puts `values` into the kept block; an empty dictionary removes it, and the file when nothing else is in it."""
    own = _without_block(path.read_text(encoding="utf-8") if path.exists() else "")
    block = "\n".join([BEGIN, *(f"{key}={value}" for key, value in values.items()), END, ""]) if values else ""
    text = (own.rstrip("\n") + "\n" if own.strip() else "") + block
    if text:
        atomic_write(path, text)  # it may hold HF_TOKEN and passwords
    else:
        path.unlink(missing_ok=True)


def own_lines(path: Path = PATH) -> str:
    """What the user wrote into it."""
    return _without_block(path.read_text(encoding="utf-8")) if path.exists() else ""


def _without_block(text: str) -> str:
    before, begin, rest = text.partition(BEGIN)
    if not begin:
        return text
    return before + rest.partition(END)[2].lstrip("\n")
