"""Whose an upload is, and when it goes: with the last chat or visit that needs it."""

import uuid
from pathlib import Path

import pytest

from webui import samples
from webui.auth import uploads
from webui.auth.uploads import acting_as, end_visit, hold_files, may_read, record_upload
from webui.user_error import UserError


@pytest.fixture
def visit() -> str:
    return uuid.uuid4().hex


def upload(folder: Path, owner: str, name: str = "cat.png", data: bytes = b"a cat") -> Path:
    path = folder / uuid.uuid5(uuid.NAMESPACE_OID, data.hex()).hex / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    record_upload(path, owner)
    return path


def test_a_file_is_its_owners_and_nobody_elses(uploads_folder: Path) -> None:
    path = upload(uploads_folder, "alice")
    with acting_as("alice"):
        assert uploads.resolve_upload(path) == path
    with acting_as("bob"), pytest.raises(UserError, match="not uploaded to this page"):
        uploads.resolve_upload(path)


def test_a_picture_that_two_have_stays_until_neither_needs_it(uploads_folder: Path, visit: str) -> None:
    path = upload(uploads_folder, "alice")
    with acting_as("alice"):
        hold_files(visit, "chat", [path])
    upload(uploads_folder, "bob")  # the same bytes, not used yet
    with acting_as("alice"):
        end_visit(visit)
    assert path.exists()
    with acting_as("bob"):
        hold_files("another visit", "chat", [path])
        hold_files("another visit", "chat", [])
    assert not path.exists()


def test_a_file_goes_with_its_last_use(uploads_folder: Path, visit: str) -> None:
    path = upload(uploads_folder, "alice")
    with acting_as("alice"):
        hold_files(visit, "box", [path])
        hold_files(visit, "chat", [path])
        hold_files(visit, "box", [])
        assert path.exists()
        hold_files(visit, "chat", [])
    assert not path.parent.exists()
    assert not may_read(path, "alice")


def test_a_closed_page_leaves_nothing(uploads_folder: Path, visit: str) -> None:
    paths = [upload(uploads_folder, "alice", data=bytes([nth])) for nth in range(3)]
    with acting_as("alice"):
        hold_files(visit, "chat", paths[:2])
        hold_files(visit, "documents", paths[2:])
        end_visit(visit)
    assert list(uploads_folder.iterdir()) == []


def test_what_is_made_of_a_sample_or_of_gradios_copy_of_it_is_its_visitors(uploads_folder: Path) -> None:
    copy = uploads_folder / "shared" / "letter.pdf"
    copy.parent.mkdir()
    copy.write_bytes((samples.HERE / "letter.pdf").read_bytes())
    for sample in (samples.HERE / "letter.pdf", copy):
        with acting_as("alice"):
            made = uploads.derived_path(sample, "letter-page-1.png")
            made.write_bytes(b"a page")
            assert uploads.resolve_upload(made) == made
            assert uploads.derived_path(sample, "letter-page-1.png") == made, "made once"
        assert not may_read(made, "bob")


def test_samples_are_everybodys_and_stay(uploads_folder: Path, visit: str) -> None:
    path = upload(uploads_folder, "alice", "receipt.png", (samples.HERE / "receipt.png").read_bytes())
    assert may_read(path, "bob")
    with acting_as("alice"):
        hold_files(visit, "chat", [path])
        hold_files(visit, "chat", [])
    assert path.exists()
    assert uploads.is_sample(path)
