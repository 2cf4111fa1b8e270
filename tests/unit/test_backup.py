"""The archive of `manyeyes backup`: whole, closed to others, and refused when it is not what was written."""

import io
import json
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from manyeyes.cli.backup import ArchiveMember, BackupInfo, BadArchive, checksum_file, read_archive, write_archive


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    members = {}
    for name, mode, text in (
        ("config/cluster.yaml", 0o644, "pools: []"),
        ("secrets/admin.key", 0o640, "me-admin-1"),
        ("volumes/state.tar", 0o600, "x" * 100_000),
    ):
        path = tmp_path / "in" / name.replace("/", "-")
        path.write_text(text)
        members[name] = ArchiveMember(path, mode)
    write_archive(tmp_path / "one.tar.gz", BackupInfo("manyeyes", "2026-11-21"), members)
    return tmp_path / "one.tar.gz"


def test_what_was_written_is_read_back_with_its_modes(archive: Path, tmp_path: Path) -> None:
    about, members = read_archive(archive, tmp_path / "out")
    assert about == BackupInfo("manyeyes", "2026-11-21")
    assert members["secrets/admin.key"].path.read_text() == "me-admin-1"
    assert members["secrets/admin.key"].mode == 0o640
    assert set(members) == {"config/cluster.yaml", "secrets/admin.key", "volumes/state.tar"}


def test_an_archive_is_closed_to_everybody_else(archive: Path) -> None:
    assert stat.S_IMODE(archive.stat().st_mode) == 0o600


def cut_short(archive: Path) -> None:
    archive.write_bytes(archive.read_bytes()[:-200])


def flip(archive: Path) -> None:
    raw = bytearray(archive.read_bytes())
    raw[len(raw) // 2] ^= 0xFF
    archive.write_bytes(raw)


def no_tar(archive: Path) -> None:
    archive.write_text("hello")


def swapped(archive: Path) -> None:
    """Another content under the same list, with the sum beside it made anew: as somebody who means harm would."""
    rewritten(archive, {"secrets/admin.key": b"me-admin-2"})


def climbing(archive: Path) -> None:
    rewritten(archive, {"../../etc/cron.d/x": b"* * * * * root true"}, listed=True)


def left_out(archive: Path) -> None:
    rewritten(archive, {"secrets/admin.key": None})


def linked(archive: Path) -> None:
    with tarfile.open(archive, "r:gz") as tar:
        manifest = json.load(tar.extractfile("manifest.json") or io.BytesIO())
    with tarfile.open(archive, "w:gz") as tar:
        _add(tar, "manifest.json", json.dumps(manifest).encode())
        link = tarfile.TarInfo("secrets/admin.key")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/shadow"
        tar.addfile(link)


def rewritten(archive: Path, changes: dict[str, bytes | None], listed: bool = False) -> None:
    with tarfile.open(archive, "r:gz") as tar:
        content = {one.name: (tar.extractfile(one) or io.BytesIO()).read() for one in tar.getmembers()}
    for name, raw in changes.items():
        if raw is None:
            del content[name]
        else:
            content[name] = raw
    if listed:
        manifest = json.loads(content["manifest.json"])
        manifest["members"] |= {name: {"sha256": "0", "mode": 0o644} for name in changes}
        content["manifest.json"] = json.dumps(manifest).encode()
    with tarfile.open(archive, "w:gz") as tar:
        for name, raw in content.items():
            _add(tar, name, raw)


def _add(tar: tarfile.TarFile, name: str, raw: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(raw)
    tar.addfile(info, io.BytesIO(raw))


@pytest.mark.parametrize("damage", [cut_short, flip, no_tar, swapped, climbing, left_out, linked])
@pytest.mark.parametrize("with_sum", [True, False])
def test_an_archive_that_is_not_what_was_written_is_refused(
    archive: Path, tmp_path: Path, damage: Callable[[Path], None], with_sum: bool
) -> None:
    damage(archive)
    if not with_sum:
        checksum_file(archive).unlink()
    with pytest.raises(BadArchive):
        read_archive(archive, tmp_path / "out")
    assert not (tmp_path.parent / "etc").exists()


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadArchive, match="the file does not exist"):
        read_archive(tmp_path / "none.tar.gz", tmp_path / "out")
