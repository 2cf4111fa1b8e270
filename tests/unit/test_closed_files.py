"""Files with secrets stay closed to others, and the containers that need them can read them."""

import os
import stat
import subprocess
from pathlib import Path

import pytest

from manyeyes.cli import backup, doctor, env_file, upgrade
from manyeyes.cli.backup import ArchiveMember, restore
from manyeyes.cli.host_info import Docker
from manyeyes.cli.terminal import CliError
from manyeyes.cli.volume_copies import Volumes
from manyeyes.config import checkout
from manyeyes.config.credentials import add_key, load_keys, load_users, set_password
from manyeyes.config.loader import load
from manyeyes.config.placement import Inventory
from tests.placed import placed

CLUSTER = "pools: [{name: a, model: org/A}]\nengines: [{name: e, pool: a, flavour: emulated}]\n"
WORKS = Docker(client="28.5.2", server="28.5.2", compose="2.40.3", root_dir="/", nvidia=True)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(autouse=True)
def umask() -> object:
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture
def never_open(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The modes of files just before they take another one's name."""
    seen: list[int] = []
    replace = Path.replace

    def watched(self: Path, target: Path) -> Path:
        seen.append(mode(self))
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", watched)
    return seen


@pytest.mark.parametrize("given", [0o600, 0o640, 0o400, 0o644])
def test_env_keeps_its_mode_when_the_cluster_goes_up_and_down(tmp_path: Path, given: int) -> None:
    path = tmp_path / ".env"
    path.write_text("HF_TOKEN=hf_secret\n")
    path.chmod(given)
    env_file.write_block({"A": "1"}, path)
    assert mode(path) == given
    env_file.write_block({}, path)
    assert mode(path) == given
    assert list(tmp_path.iterdir()) == [path]


def test_a_new_env_is_closed_to_others(tmp_path: Path, never_open: list[int]) -> None:
    env_file.write_block({"A": "1"}, tmp_path / ".env")
    assert mode(tmp_path / ".env") == 0o600
    assert never_open == [0o600]


def test_a_file_with_secrets_is_written_below_a_name_that_only_its_owner_can_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / ".env"
    path.write_text("HF_TOKEN=hf_secret\n")
    path.chmod(0o640)
    seen: list[int] = []
    fdopen = os.fdopen

    def watched(handle: int, *arguments: object) -> object:
        seen.append(stat.S_IMODE(os.fstat(handle).st_mode))
        return fdopen(handle, *arguments)  # type: ignore[call-overload]

    monkeypatch.setattr(os, "fdopen", watched)
    env_file.write_block({"A": "1"}, path)
    assert seen == [0o600]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_root_leaves_a_users_file_to_the_user(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text("HF_TOKEN=hf_secret\n")
    path.chmod(0o600)
    os.chown(path, 1234, 2345)
    env_file.write_block({"A": "1"}, path)
    assert (path.stat().st_uid, path.stat().st_gid, mode(path)) == (1234, 2345, 0o600)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_what_root_makes_anew_in_a_users_folder_is_the_users(tmp_path: Path) -> None:
    folder = tmp_path / "clone"
    folder.mkdir()
    os.chown(folder, 1234, 2345)
    env_file.write_block({"A": "1"}, folder / ".env")
    assert ((folder / ".env").stat().st_uid, mode(folder / ".env")) == (1234, 0o600)
    set_password(folder / "users.yaml", "alice", "correct horse")
    users = folder / "users.yaml"
    assert (users.stat().st_uid, users.stat().st_gid, mode(users)) == (1234, checkout.CONTAINER_USER, 0o640)


def make_users(folder: Path) -> Path:
    set_password(folder / "users.yaml", "alice", "correct horse")
    return folder / "users.yaml"


def make_keys(folder: Path) -> Path:
    add_key(folder / "api-keys.yaml", "alice", None, None)
    return folder / "api-keys.yaml"


@pytest.mark.parametrize("make", [make_users, make_keys])
def test_new_users_and_keys_are_closed_to_others_and_open_to_their_container(tmp_path: Path, make: object) -> None:
    path = make(tmp_path)  # type: ignore[operator]
    assert not mode(path) & 0o007
    assert checkout.is_readable_by_containers(path)


@pytest.mark.parametrize("given", [0o600, 0o640])
def test_users_and_keys_keep_a_stricter_mode_when_one_is_added(tmp_path: Path, given: int) -> None:
    for path in (make_users(tmp_path), make_keys(tmp_path)):
        path.chmod(given)
    set_password(tmp_path / "users.yaml", "bob", "correct horse")
    add_key(tmp_path / "api-keys.yaml", "bob", None, None)
    assert {mode(path) for path in tmp_path.iterdir()} == {given}
    assert len(load_users(tmp_path / "users.yaml").users) == len(load_keys(tmp_path / "api-keys.yaml").keys) == 2


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_roots_own_closed_file_is_given_to_the_containers_user_and_keeps_its_mode(tmp_path: Path) -> None:
    path = make_users(tmp_path)
    os.chown(path, 0, 0)
    path.chmod(0o600)
    assert not checkout.is_readable_by_containers(path)
    checkout.grant_container_access(path)
    assert (path.stat().st_uid, mode(path)) == (checkout.CONTAINER_USER, 0o600)
    assert checkout.is_readable_by_containers(path)


def checks(config: Path) -> dict[str, doctor.Check]:
    found = doctor.run_checks(placed(CLUSTER), WORKS, Inventory(flavour="emulated"), is_running=True, config=config)
    return {check.name: check for check in found}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_doctor_tells_of_a_users_file_that_the_page_cannot_read_and_never_to_open_it_to_all(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    config = tmp_path / "cluster.yaml"
    config.write_text(CLUSTER)
    path = make_users(tmp_path)
    assert checks(config)["users of the page"].remedy == ""
    assert checks(config)["mounted files"].remedy == ""
    os.chown(path, 1234, 2345)
    path.chmod(0o600)
    remedy = checks(config)["users of the page"].remedy
    assert "chgrp" in remedy
    subprocess.run(remedy, shell=True, check=True)
    assert checks(config)["users of the page"].remedy == ""
    assert mode(path) == 0o640
    config.chmod(0o600)
    assert checks(config)["mounted files"].remedy.endswith(f" && chmod o-rwx {path}")


@pytest.mark.parametrize("command", ["upgrade", "pin-images"])
def test_a_configuration_that_is_written_anew_keeps_its_mode(
    tmp_path: Path, command: str, never_open: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "cluster.yaml"
    config.write_text(CLUSTER)
    config.chmod(0o640)
    if command == "upgrade":
        upgrade._write(config, CLUSTER + "images: {vllm_cpu: v/v:2}\n")
    else:
        monkeypatch.setattr(upgrade, "digest_of", lambda reference: "sha256:" + "0" * 64)
        upgrade.pin_images(config)
    assert mode(config) == 0o640
    assert never_open == [0o640]
    assert load(config).images != placed(CLUSTER).images


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration, secrets and .env; Docker is there and has no volume of the project."""
    folder = tmp_path / "config"
    folder.mkdir()
    (folder / "cluster.yaml").write_text(CLUSTER)
    monkeypatch.setenv("SECRETS_DIR", str(tmp_path / "secrets"))
    (tmp_path / "secrets").mkdir()
    monkeypatch.setattr(env_file, "PATH", tmp_path / ".env")
    monkeypatch.setattr(env_file.own_lines, "__defaults__", (tmp_path / ".env",))
    monkeypatch.setattr("manyeyes.cli.backup.docker_install.ensure", lambda: WORKS)
    monkeypatch.setattr("manyeyes.cli.backup.Compose.runs", lambda self: False)
    monkeypatch.setattr(Volumes, "exists", lambda self, volume: False)
    return folder


def kept(host: Path) -> Path:
    return backup.backup(host / "cluster.yaml", str(host.parent / "b.tar.gz"))


def test_users_come_back_from_a_backup_with_their_mode(host: Path) -> None:
    make_users(host).chmod(0o600)
    before = (host / "users.yaml").read_text()
    archive = kept(host)
    (host / "users.yaml").unlink()
    restore(host / "cluster.yaml", str(archive))
    assert (host / "users.yaml").read_text() == before
    assert mode(host / "users.yaml") == 0o600
    assert mode(archive) == 0o600


def test_users_come_back_beside_another_configuration_and_under_their_own_name(host: Path, tmp_path: Path) -> None:
    (host / "cluster.yaml").write_text(CLUSTER + "webui: {users_file: people.yaml}\n")
    make_users(host).rename(host / "people.yaml")
    archive = kept(host)
    other = tmp_path / "elsewhere"
    other.mkdir()
    restore(other / "op.yaml", str(archive))
    assert [user.name for user in load_users(other / "people.yaml").users] == ["alice"]


def test_users_that_were_here_and_differ_are_kept_beside_the_restored_ones_as_closed_as_they_were(host: Path) -> None:
    make_users(host)
    archive = kept(host)
    (host / "users.yaml").unlink()
    make_users(host).chmod(0o600)
    restore(host / "cluster.yaml", str(archive))
    [aside] = host.glob("users.yaml.before-*")
    assert mode(aside) == 0o600
    assert not mode(host / "users.yaml") & 0o007


def test_env_and_secrets_come_back_closed_and_are_never_open_meanwhile(host: Path, never_open: list[int]) -> None:
    (host.parent / ".env").write_text("HF_TOKEN=hf_secret\n")
    (host.parent / "secrets/admin.key").write_text("me-admin-1")
    (host.parent / "secrets/admin.key").chmod(0o640)
    archive = kept(host)
    for path in (host.parent / ".env", host.parent / "secrets/admin.key"):
        path.unlink()
    never_open.clear()
    restore(host / "cluster.yaml", str(archive))
    assert mode(host.parent / ".env") == 0o600
    assert mode(host.parent / "secrets/admin.key") == 0o640
    assert not any(one & 0o007 for one in never_open)


def test_a_backup_of_an_older_version_is_restored_and_says_that_users_are_not_in_it(
    host: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_users(host)
    files = backup._files

    def older(*arguments: object) -> dict[str, ArchiveMember]:
        found = files(*arguments)  # type: ignore[arg-type]
        names = found["config/names.json"].path
        names.write_text('{"config": "cluster.yaml", "keys": "api-keys.yaml"}')
        return {name: member for name, member in found.items() if name != "config/users.yaml"}

    monkeypatch.setattr(backup, "_files", older)
    archive = kept(host)
    restore(host / "cluster.yaml", str(archive))
    assert (host / "users.yaml").exists()
    assert "did not save the users" not in capsys.readouterr().out
    (host / "users.yaml").unlink()
    restore(host / "cluster.yaml", str(archive))
    assert "did not save the users" in capsys.readouterr().out


EVERYTHING = """
gateway: {tls: {}}
monitoring: {alerting: {webhooks: [{url_file: pager.url}]}}
pools:
  - {name: a, model: org/A}
  - {name: b, model: m, remote: {url: "https://h.example.com/v1", key_file: b.key, ca_file: b-ca.crt}}
engines: [{name: e, pool: a, flavour: emulated}]
"""
NEEDED = ("tls.crt", "tls.key", "pager.url", "b.key", "b-ca.crt")


def test_a_backup_has_every_file_that_a_restore_needs_and_gives_all_of_them_back(host: Path) -> None:
    (host / "cluster.yaml").write_text(EVERYTHING)
    (host.parent / ".env").write_text("HF_TOKEN=hf_secret\n")
    make_users(host)
    make_keys(host)
    folder = host.parent / "secrets"
    for name in (*NEEDED, "admin.key", "of-a-registration.key"):
        (folder / name).write_text(name)
    files = {path: path.read_bytes() for path in [*host.iterdir(), *folder.iterdir(), host.parent / ".env"]}
    archive = kept(host)
    for path in files:
        path.unlink()
    restore(host / "cluster.yaml", str(archive))
    assert {path: path.read_bytes() for path in files} == files


@pytest.mark.parametrize("name", NEEDED)
def test_a_backup_that_would_lack_a_file_of_the_configuration_is_not_made(host: Path, name: str) -> None:
    (host / "cluster.yaml").write_text(EVERYTHING)
    for needed in set(NEEDED) - {name}:
        (host.parent / "secrets" / needed).write_text("x")
    with pytest.raises(CliError, match=f"secrets/{name} is missing"):
        kept(host)
    assert not (host.parent / "b.tar.gz").exists()


@pytest.mark.parametrize("name", ["my key.pem", ".hidden", "-x", "folder/x.key", "link-to-nothing"])
def test_a_backup_that_a_restore_would_refuse_or_that_would_pass_over_a_secret_is_not_made(
    host: Path, name: str
) -> None:
    path = host.parent / "secrets" / name
    path.parent.mkdir(exist_ok=True)
    if name == "link-to-nothing":
        path.symlink_to("nowhere")
    else:
        path.write_text("secret")
    with pytest.raises(CliError, match="only files with plain names"):
        kept(host)
    assert not (host.parent / "b.tar.gz").exists()
