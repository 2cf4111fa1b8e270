"""The file that `manyeyes backup` writes and `manyeyes restore` reads: a tar with a list of its members and their sums, closed to others."""

import hashlib
import io
import json
import re
import tarfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

FORMAT = 1
MANIFEST = "manifest.json"
MEMBER = re.compile(
    r"^(config/(cluster|keys|users)\.yaml|config/names\.json|env|secrets/[A-Za-z0-9][A-Za-z0-9._-]*|volumes/[a-z]+\.tar)$"
)


class BadArchive(Exception):
    """Not a whole backup; the text says what is wrong with it."""


@dataclass(frozen=True)
class ArchiveMember:
    """One file of the archive; `mode` are its permission bits."""

    path: Path
    mode: int


@dataclass(frozen=True)
class BackupInfo:
    """Of which cluster, and of when."""

    project: str
    at: str


def write(file: Path, about: BackupInfo, members: Mapping[str, ArchiveMember]) -> str:
    """Writes `file` whole or not at all, readable by its owner only; returns its sum, which is also put beside it."""
    part = file.with_name(f"{file.name}.part")
    part.touch(0o600)
    part.chmod(0o600)
    listed = {name: {"sha256": _sum(one.path), "mode": one.mode} for name, one in sorted(members.items())}
    manifest = {"format": FORMAT, "project": about.project, "at": about.at, "members": listed}
    with tarfile.open(part, "w:gz", compresslevel=6) as tar:
        text = json.dumps(manifest, indent=1).encode()
        info = tarfile.TarInfo(MANIFEST)
        info.size, info.mode = len(text), 0o600
        tar.addfile(info, io.BytesIO(text))
        for name, one in sorted(members.items()):
            info = tarfile.TarInfo(name)
            info.size, info.mode = one.path.stat().st_size, one.mode
            with one.path.open("rb") as content:
                tar.addfile(info, content)
    total = _sum(part)
    part.replace(file)
    checksum_file(file).write_text(f"{total}  {file.name}\n")
    return total


def checksum_file(file: Path) -> Path:
    """Where the archive's own sum is."""
    return file.with_name(f"{file.name}.sha256")


def read(file: Path, folder: Path) -> tuple[BackupInfo, dict[str, ArchiveMember]]:
    """Unpacks everything into `folder`, after every sum was found right. Raises BadArchive; then `folder` is not to be used."""
    try:
        if checksum_file(file).exists() and checksum_file(file).read_text().split()[:1] != [_sum(file)]:
            raise BadArchive(f"its sum is not the one in {checksum_file(file).name}")
        with tarfile.open(file, "r:gz") as tar:
            return _unpacked(tar, folder)
    except FileNotFoundError:
        raise BadArchive("there is no such file") from None
    except (tarfile.TarError, OSError, EOFError, zlib.error, ValueError, KeyError, TypeError) as error:
        raise BadArchive(f"it is cut short or no backup: {error}") from error


def _unpacked(tar: tarfile.TarFile, folder: Path) -> tuple[BackupInfo, dict[str, ArchiveMember]]:
    first = tar.next()
    stream = tar.extractfile(first) if first and first.name == MANIFEST and first.isreg() else None
    if stream is None:
        raise BadArchive("it does not begin with a list of its members")
    manifest = json.load(stream)
    if manifest["format"] != FORMAT:
        raise BadArchive(f"its format is {manifest['format']}, and this version reads {FORMAT}")
    listed = manifest["members"]
    found: dict[str, ArchiveMember] = {}
    while info := tar.next():
        if info.name not in listed or not info.isreg() or not MEMBER.match(info.name):
            raise BadArchive(f"{info.name[:100]!r} does not belong into a backup")
        target = folder / info.name
        target.parent.mkdir(parents=True, exist_ok=True)
        content = tar.extractfile(info)
        assert content
        with target.open("wb") as file:
            while block := content.read(1 << 20):
                file.write(block)
        if _sum(target) != listed[info.name]["sha256"]:
            raise BadArchive(f"{info.name} is damaged")
        found[info.name] = ArchiveMember(target, int(listed[info.name]["mode"]) & 0o777)
    if missing := sorted(set(listed) - set(found)):
        raise BadArchive(f"{missing[0]} is missing")
    return BackupInfo(str(manifest["project"]), str(manifest["at"])), found


def _sum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
