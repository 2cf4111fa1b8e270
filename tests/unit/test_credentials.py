"""API keys: the file, and the commands that make and list them."""

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from manyeyes.cli.__main__ import app
from manyeyes.config.credentials import (
    ApiKey,
    ApiKeys,
    KeysError,
    UsersError,
    add_key,
    hash_password,
    load_keys,
    load_users,
    parse_users,
    set_password,
    verify_password,
)

ROOT = Path(__file__).resolve().parents[2]
ONE, TWO = "1a" * 32, "2b" * 32
CLUSTER = "pools: [{name: a, model: org/A}]\n"


def written(folder: Path, text: str) -> Path:
    path = folder / "api-keys.yaml"
    path.write_text(text)
    return path


def problems_of_keys(folder: Path, text: str) -> list[str]:
    with pytest.raises(KeysError) as caught:
        load_keys(written(folder, text))
    return caught.value.problems


def test_without_a_file_and_in_an_empty_one_there_is_no_key(tmp_path: Path) -> None:
    assert load_keys(tmp_path / "none.yaml") == ApiKeys()
    assert load_keys(written(tmp_path, "# nothing\n")) == ApiKeys()


def test_a_new_key_is_kept_as_its_hash_beside_the_others(tmp_path: Path) -> None:
    path = tmp_path / "api-keys.yaml"
    first = add_key(path, "alice", 600, 8)
    second = add_key(path, "bob@example.com", None, None)
    assert first != second
    assert load_keys(path).keys == (
        ApiKey(name="alice", sha256=hashlib.sha256(first.encode()).hexdigest(), requests_per_minute=600, in_flight=8),
        ApiKey(name="bob@example.com", sha256=hashlib.sha256(second.encode()).hexdigest()),
    )
    assert first not in path.read_text()


def test_a_name_that_is_there_already_is_refused_and_the_file_stays_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "api-keys.yaml"
    add_key(path, "alice", None, None)
    before = path.read_bytes()
    with pytest.raises(KeysError, match="a key named 'alice' already exists"):
        add_key(path, "alice", 5, None)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("name", "rate", "at_once", "said"),
    [
        ("", None, None, "name: expected 1 to 64 letters, digits"),
        ("a b", None, None, "name: expected 1 to 64 letters, digits"),
        ('a"; deny all; "', None, None, "name: expected 1 to 64 letters, digits"),
        ("alice", 0, None, "requests_per_minute: expected a whole number from 1 to 1000000, got 0"),
        ("alice", None, 70_000, "in_flight: expected a whole number from 1 to 65535, got 70000"),
    ],
)
def test_a_key_that_cannot_be_is_refused_and_nothing_is_written(
    tmp_path: Path, name: str, rate: int | None, at_once: int | None, said: str
) -> None:
    with pytest.raises(KeysError, match=said):
        add_key(tmp_path / "api-keys.yaml", name, rate, at_once)
    assert list(tmp_path.iterdir()) == []


def test_every_problem_of_a_file_is_told_by_the_keys_name(tmp_path: Path) -> None:
    text = f"""
keys:
  - {{name: alice, sha256: me-a-key-itself}}
  - {{name: bob, sha256: {ONE}, rpm: 5}}
  - {{sha256: {TWO}, in_flight: many}}
  - text
"""
    found = problems_of_keys(tmp_path, text)
    assert found == [
        "keys[alice].sha256: expected 64 hexadecimal digits, the SHA-256 of the key",
        "keys[bob].rpm is not a setting; the settings are name, sha256, requests_per_minute, in_flight",
        "keys[2].name is missing",
        "keys[2].in_flight: expected a whole number from 1 to 65535",
        "keys[3]: expected an entry with name, sha256, requests_per_minute, in_flight",
    ]


def test_names_and_hashes_that_stand_there_twice_are_told_together(tmp_path: Path) -> None:
    text = yaml.safe_dump(
        {"keys": [{"name": "a", "sha256": ONE}, {"name": "a", "sha256": TWO}, {"name": "b", "sha256": ONE}]}
    )
    assert problems_of_keys(tmp_path, text) == [
        "keys has 2 entries named 'a'; names must be unique",
        "keys[a] and keys[b] have the same sha256; delete one of them",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("keys: 3", "keys: expected a list of keys"),
        ("- a", "the file: expected `keys:` with a list of keys"),
        ("key: []", "key is not a setting"),
        ("keys: [", "cannot be read"),
    ],
)
def test_a_file_of_another_form_is_one_sentence(tmp_path: Path, text: str, said: str) -> None:
    found = problems_of_keys(tmp_path, text)
    assert len(found) == 1, found
    assert said in found[0]
    assert "\n" not in found[0]


def config(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "manyeyes.cli", *arguments], capture_output=True, text=True, cwd=ROOT)


def test_the_command_prints_the_key_alone_and_says_beside_it_what_to_do_next(tmp_path: Path) -> None:
    cluster = tmp_path / "cluster.yaml"
    cluster.write_text(CLUSTER)
    made = config("key", "--config", cluster, "--requests-per-minute=600", "--in-flight=8", "alice")
    assert made.returncode == 0, made.stderr
    key = made.stdout.strip()
    assert load_keys(tmp_path / "api-keys.yaml").keys[0].sha256 == hashlib.sha256(key.encode()).hexdigest()
    assert "A running cluster accepts it within seconds" in made.stderr
    assert "all requests require a key" in made.stderr
    again = config("key", "--config", cluster, "bob")
    assert "all requests require a key" not in again.stderr
    listed = config("keys", "--config", cluster)
    assert listed.stdout.splitlines()[1:] == ["  alice   600 requests per minute, 8 concurrent", "  bob   no limit"]
    assert key not in listed.stdout


def test_the_command_ends_with_2_and_one_sentence_where_the_name_is_taken(tmp_path: Path) -> None:
    cluster = tmp_path / "cluster.yaml"
    cluster.write_text(CLUSTER)
    config("key", "--config", cluster, "alice")
    again = config("key", "--config", cluster, "alice")
    assert (again.returncode, again.stdout) == (2, "")
    assert again.stderr.splitlines() == [
        f"{tmp_path}/api-keys.yaml: a key named 'alice' already exists; delete its entry to create a new key"
    ]


def test_checking_the_configuration_checks_its_keys_too(tmp_path: Path) -> None:
    cluster = tmp_path / "cluster.yaml"
    cluster.write_text(CLUSTER + "gateway: {keys_file: people.yaml}\n")
    assert config("check-config", cluster).returncode == 0
    (tmp_path / "people.yaml").write_text("keys: 3\n")
    checked = config("check-config", cluster)
    assert (checked.returncode, checked.stderr.strip()) == (2, f"{tmp_path}/people.yaml: keys: expected a list of keys")


def test_what_compose_reads_holds_no_key(tmp_path: Path) -> None:
    cluster = tmp_path / "cluster.yaml"
    cluster.write_text(CLUSTER)
    config("key", "--config", cluster, "alice")
    assert config("render", "--config", cluster, "--out", tmp_path / "out").returncode == 0
    written = [path.read_text() for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert len(written) > 3
    assert not [text for text in written if "alice" in text]


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


@pytest.mark.parametrize(
    ("name", "password", "said"), [("a b", "long enough", "name: expected"), ("alice", "short", "8")]
)
def test_what_cannot_be_is_refused_and_nothing_is_written(tmp_path: Path, name: str, password: str, said: str) -> None:
    with pytest.raises(UsersError, match=said):
        set_password(tmp_path / "users.yaml", name, password)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"users": [{"name": "alice", "password": "secret"}]}, "users[alice].password: expected a hash in the format"),
        ({"users": [{"name": "alice", "password": GOOD.replace("$14$", "$31$")}]}, "users[alice].password: expected"),
        ({"users": [{"name": "alice"}]}, "users[alice].password is missing"),
        ({"users": [{"name": "alice", "password": GOOD, "admin": True}]}, "users[alice].admin is not a setting"),
        ({"users": [{"name": "alice", "password": GOOD}] * 2}, "users has 2 entries named 'alice'"),
        ({"users": "alice"}, "users: expected a list of users"),
        ({"users": []}, "has no users"),
        ([], "the file: expected `users:`"),
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
    assert "users.yaml: users[alice].password: expected a hash" in said
    assert "api-keys.yaml: keys: expected" in said


def test_the_command_prints_a_password_that_works_and_says_what_follows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", type("Pipe", (), {"isatty": lambda self: False})())
    (tmp_path / "cluster.yaml").write_text(CLUSTER)
    printed = CliRunner().invoke(app, ["user", "alice", "--config", str(tmp_path / "cluster.yaml")])
    assert printed.exit_code == 0
    [alice] = load_users(tmp_path / "users.yaml").users
    assert verify_password(printed.stdout.strip(), alice)
    assert "the page requires a login" in printed.stderr
