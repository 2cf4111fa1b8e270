"""The admin key as `make up` makes it."""

from pathlib import Path

import pytest

from manyeyes.cli import secrets
from manyeyes.cli.invocation import DEFAULT_CONFIG
from manyeyes.cli.terminal import CliError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SECRETS_DIR", str(tmp_path))
    return tmp_path


def test_it_is_random_closed_to_others_and_not_printed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keys = set()
    for _ in range(3):
        (folder / "admin.key").unlink(missing_ok=True)
        secrets.ensure_admin_key(DEFAULT_CONFIG)
        keys.add(secrets.read_admin_key())
    assert len(keys) == 3
    assert all(len(key) >= 40 for key in keys)
    assert (folder / "admin.key").stat().st_mode & 0o777 == 0o640
    said = capsys.readouterr().out
    assert "manyeyes admin-key" in said
    assert not any(key in said for key in keys)


def test_one_that_is_there_stays(folder: Path) -> None:
    (folder / "admin.key").write_text("chosen-by-the-operator\n")
    secrets.ensure_admin_key(DEFAULT_CONFIG)
    assert secrets.read_admin_key() == "chosen-by-the-operator"


def test_a_folder_that_takes_nothing_is_told_and_stops_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "file").write_text("")
    monkeypatch.setenv("SECRETS_DIR", str(folder / "file"))
    secrets.ensure_admin_key(DEFAULT_CONFIG)
    assert "no admin key could be made" in capsys.readouterr().out


def test_without_one_the_command_says_who_makes_it(folder: Path) -> None:
    with pytest.raises(CliError) as trouble:
        secrets.read_admin_key()
    assert "`make up` makes one" in trouble.value.problems[0]
