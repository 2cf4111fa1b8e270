"""Which files a visitor may name: what was uploaded or made here for them. owners.py knows for whom."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

from webui import samples
from webui.auth import upload_ownership
from webui.i18n.language import say
from webui.user_error import Failure


def folder() -> Path:
    """Gradio's, as it finds it itself."""
    return Path(os.environ.get("GRADIO_TEMP_DIR") or Path(tempfile.gettempdir()) / "gradio").resolve()


def own(path: str | Path) -> Path:
    """`path`, if a visitor may name it. Raises Failure: a browser can put any path into a request."""
    found = Path(path).resolve()
    if not (found.is_relative_to(folder()) or found.is_relative_to(samples.HERE)):
        raise Failure(say("This file was not uploaded to this page."), say("Attach it again."))
    if found.is_file() and not upload_ownership.mine(found):
        raise Failure(say("This file was not uploaded to this page."), say("Attach it again."))
    if not found.is_file():
        raise Failure(
            say("The page no longer holds {name}.", name=found.name), say("Attach it again, or begin a new chat.")
        )
    return found


def place(name: str, data: bytes) -> Path:
    """Writes `data` where uploads lie, under its own hash."""
    return _write(hashlib.sha256(data).hexdigest(), name, data)


def beside(path: Path, name: str) -> Path:
    """Where a file made of an upload goes: into its folder; of a sample, which all visitors share, into one for each of them."""
    if not upload_ownership.is_sample(path):
        return path.parent / name
    made = folder() / hashlib.sha256(f"{upload_ownership.acting_owner()}\0{path}".encode()).hexdigest()
    made.mkdir(parents=True, exist_ok=True)
    upload_ownership.made(made / name)
    return made / name


def _write(digest: str, name: str, data: bytes) -> Path:
    made = folder() / digest
    made.mkdir(parents=True, exist_ok=True)
    path = made / Path(name).name
    path.write_bytes(data)
    upload_ownership.made(path)
    return path
