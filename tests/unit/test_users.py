"""The users file of the page: what `manyeyes user` writes, what is wrong in one, and whose password it is."""

from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from manyeyes.cli.__main__ import app
from manyeyes.config.credentials import (
    UsersError,
    hash_password,
    load_users,
    parse_users,
    set_password,
    verify_password,
)

CLUSTER = "pools: [{name: a, model: org/A}]\n"
GOOD = hash_password("a good password")


def test_without_a_file_there_is_nobody_and_nobody_is_asked(tmp_path: Path) -> None:
    assert load_users(tmp_path / "users.yaml").users == ()


def test_a_password_is_kept_as_a_hash_with_its_own_salt(tmp_path: Path) -> None:
    path = tmp_path / "users.yaml"
    assert set_password(path, "alice", "correct horse")
    assert set_password(path, "bob", "correct horse")
    assert "correct horse" not in path.read_text()
    alice, bob = load_users(path).users
    assert alice.password != bob.password
    assert verify_password("correct horse", alice)
    assert not verify_password("correct horsf", alice)
    assert not verify_password("correct horse", None)


def test_a_new_password_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "users.yaml"
    set_password(path, "alice", "the first one")
    assert not set_password(path, "alice", "the second one")
    [alice] = load_users(path).users
    assert verify_password("the second one", alice)
    assert not verify_password("the first one", alice)


@pytest.mark.parametrize(("name", "password", "said"), [("a b", "long enough", "name wants"), ("alice", "short", "8")])
def test_what_cannot_be_is_refused_and_nothing_is_written(tmp_path: Path, name: str, password: str, said: str) -> None:
    with pytest.raises(UsersError, match=said):
        set_password(tmp_path / "users.yaml", name, password)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"users": [{"name": "alice", "password": "secret"}]}, "users[alice].password wants a hash as `manyeyes user`"),
        ({"users": [{"name": "alice", "password": GOOD.replace("$14$", "$31$")}]}, "users[alice].password wants"),
        ({"users": [{"name": "alice"}]}, "users[alice].password is missing"),
        ({"users": [{"name": "alice", "password": GOOD, "admin": True}]}, "users[alice].admin is not a setting"),
        ({"users": [{"name": "alice", "password": GOOD}] * 2}, "users has 2 entries named 'alice'"),
        ({"users": "alice"}, "users wants a list of users"),
        ({"users": []}, "has no user"),
        ([], "the file wants `users:`"),
    ],
)
def test_a_bad_file_is_one_sentence_that_never_shows_what_stood_there(document: object, said: str) -> None:
    with pytest.raises(UsersError) as caught:
        parse_users(yaml.safe_dump(document), Path("users.yaml"))
    assert f"users.yaml: {said}" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_checking_the_configuration_names_what_is_wrong_with_its_users(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cluster.yaml").write_text(CLUSTER)
    (tmp_path / "api-keys.yaml").write_text("keys: 3")
    (tmp_path / "users.yaml").write_text("users: [{name: alice, password: x}]")
    ended = CliRunner().invoke(app, ["check-config", str(tmp_path / "cluster.yaml")])
    assert ended.exit_code == 2
    said = ended.stderr
    assert "users.yaml: users[alice].password wants a hash" in said
    assert "api-keys.yaml: keys wants" in said


def test_the_command_prints_a_password_that_works_and_says_what_follows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", type("Pipe", (), {"isatty": lambda self: False})())
    (tmp_path / "cluster.yaml").write_text(CLUSTER)
    printed = CliRunner().invoke(app, ["user", "alice", "--config", str(tmp_path / "cluster.yaml")])
    assert printed.exit_code == 0
    [alice] = load_users(tmp_path / "users.yaml").users
    assert verify_password(printed.stdout.strip(), alice)
    assert "asks everybody to log in" in printed.stderr
