"""The .env file that Docker Compose reads: the user's own lines, and a few that `make up` keeps."""

import os
from pathlib import Path

from manyeyes.atomic_write import atomic_write
from manyeyes.config.checkout import ROOT

BEGIN = "# --- kept by `make up`: what this host runs; `make down` removes it ---"
END = "# --- end ---"
PATH = ROOT / os.environ.get("MANYEYES_ENV_FILE", ".env")


def read(path: Path = PATH) -> dict[str, str]:
    """KEY=value lines; quotes around a value are dropped."""
    if not path.exists():
        return {}
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    pairs = (line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    return {key.strip(): value.strip().strip("\"'") for key, value in pairs}


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
