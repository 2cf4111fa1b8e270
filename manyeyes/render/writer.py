"""Puts rendered files on disk: each replaced at once, unchanged ones not touched, ones no longer rendered removed."""

from pathlib import Path


def write(files: dict[str, str], folder: Path, kept: frozenset[str] = frozenset()) -> list[str]:
    """The names of the files that changed. `kept` are somebody else's, and stay."""
    changed = []
    for name, text in files.items():
        path = folder / name
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(path.name + ".new")
        temporary.write_text(text, encoding="utf-8")
        # Containers read it as users of their own, whatever this one's umask is.
        temporary.chmod(0o644)
        path.parent.chmod(0o755)
        temporary.replace(path)
        changed.append(name)
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_file() and name not in files and name not in kept:
            path.unlink()
            changed.append(name)
    return changed
