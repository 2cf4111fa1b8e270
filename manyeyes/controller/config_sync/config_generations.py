"""The folder in which nginx is offered its files: every generation whole in a folder of its own, `current` a link to one.

    generations/NAME/   rendered files (manyeyes/render/nginx/files.py)
    current             -> the generation that is to be in force
    proven              -> the one that nginx was last seen to run on, for when it starts while `current` is refused

A generation is on disk, complete and synced, before the link leads to it: a reader finds the old one or the new one, also
after a kill -9 at any instant. nginx/start.sh reads it.
"""

import contextlib
import os
import shutil
from pathlib import Path

CURRENT, PROVEN = "current", "proven"


class GenerationStore:
    """One such folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def current(self) -> str:
        """The generation that is to be in force; empty before the first."""
        return self._target(CURRENT)

    @property
    def proven(self) -> str:
        """The generation last seen in force; empty before that."""
        return self._target(PROVEN)

    def publish(self, name: str, files: dict[str, str]) -> None:
        """Makes `files` the current generation. Raises OSError, and the one before stays."""
        generation = self.folder / "generations" / name
        if not generation.exists():
            self._write(generation, files)
        self._link(CURRENT, name)
        self._sweep()

    def mark_proven(self, name: str) -> None:
        """Remembers that nginx runs on this generation, if it is here. Raises OSError."""
        if name != self.proven and (self.folder / "generations" / name).is_dir():
            self._link(PROVEN, name)
            self._sweep()

    def _write(self, generation: Path, files: dict[str, str]) -> None:
        fresh = generation.with_name(f".{generation.name}.new")
        shutil.rmtree(fresh, ignore_errors=True)
        try:
            fresh.mkdir(parents=True)
            fresh.parent.chmod(0o755)  # nginx reads it as a user of its own, whatever this one's umask is
            fresh.chmod(0o755)
            for file, text in files.items():
                with (fresh / file).open("w", encoding="utf-8") as opened:
                    opened.write(text)
                    opened.flush()
                    os.fsync(opened.fileno())
                    os.fchmod(opened.fileno(), 0o644)
            fresh.rename(generation)
        except OSError:
            shutil.rmtree(fresh, ignore_errors=True)
            raise

    def _link(self, link: str, name: str) -> None:
        fresh = self.folder / f".{link}.new"
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(Path("generations") / name)
        fresh.replace(self.folder / link)

    def _target(self, link: str) -> str:
        with contextlib.suppress(OSError):
            return (self.folder / link).readlink().name
        return ""

    def _sweep(self) -> None:
        """Takes away generations that no link leads to, and what a kill left half-written."""
        for folder in (self.folder / "generations").iterdir():
            if folder.name not in (self.current, self.proven):
                shutil.rmtree(folder, ignore_errors=True)
