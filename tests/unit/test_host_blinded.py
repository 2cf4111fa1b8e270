"""A wrong configuration file or a Docker that cannot be asked keeps nobody from looking, and is never taken for "nothing runs"."""

import os
import sys
from pathlib import Path

import pytest

from manyeyes.cli import backup, docker_install, env_file, process, started_services
from manyeyes.cli.__main__ import app, run
from manyeyes.cli.compose import Compose
from manyeyes.cli.invocation import next_command
from manyeyes.cli.measurement_commands import PROGRAMS
from manyeyes.cli.process import CommandFailed
from manyeyes.config.loader import ConfigError

CLUSTER = "name: mine\npools: [{name: a, model: org/A}]\nengines: [{name: e, pool: a, flavour: emulated}]\n"
CLOSED = "permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock"
ABSENT = "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?"


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Started once, and mistyped since."""
    monkeypatch.setattr(started_services, "ROOT", tmp_path)
    file = tmp_path / "my" / "op.yaml"
    file.parent.mkdir()
    file.write_text(CLUSTER.replace("pools", "pols"))
    for name, text, folder in (("host-mine", CLUSTER, "./my"), ("host-a", CLUSTER.replace("mine", "a"), "./other")):
        rendered = tmp_path / "compose/rendered" / name
        rendered.mkdir(parents=True)
        (rendered / started_services.CONFIGURATION).write_text(text)
        (rendered / "compose.env").write_text(f"# made by\nCONFIG_DIR={folder}\nCONFIG_NAME=op.yaml\n")
    return file


def test_a_typo_in_the_configuration_leaves_what_the_cluster_was_started_with(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert started_services.configuration(config).name == "mine"
    printed = capsys.readouterr()
    assert printed.out == ""  # which may be a key
    assert printed.err.splitlines() == [
        f"{config} has 2 problems and is ignored: using the configuration with which the cluster was started. "
        f"`{next_command('check-config', config=config)}` lists the problems."
    ]


def test_a_right_configuration_is_taken_as_it_is(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config.write_text(CLUSTER.replace("mine", "new"))
    assert started_services.configuration(config).name == "new"
    assert capsys.readouterr().out == ""


def test_a_wrong_configuration_that_nothing_was_started_with_is_told(config: Path) -> None:
    other = config.with_name("another.yaml")
    other.write_text(config.read_text())
    with pytest.raises(ConfigError, match="pols is not a setting"):
        started_services.configuration(other)


def test_a_backup_beside_a_typo_holds_a_configuration_that_can_be_restored(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRETS_DIR", str(tmp_path / "none"))
    monkeypatch.setattr("manyeyes.cli.backup.docker_install.ensure", lambda: None)
    monkeypatch.setattr("manyeyes.cli.backup.Volumes.exists", lambda self, volume: False)
    monkeypatch.setattr(env_file.own_lines, "__defaults__", (tmp_path / ".env",))
    monkeypatch.setattr(Compose, "runs", lambda self: False)
    archive = backup.backup(config, str(tmp_path / "b.tar.gz"))
    backup.restore(config, str(archive))
    assert config.read_text() == CLUSTER


ON_THE_RUNNING_CLUSTER: dict[str, list[str]] = {
    "down": [], "clean": [], "status": [], "report": [], "scale": ["2"], "drain": ["e"], "resume": ["e"],
    "restart-rolling": [], "backup": [], "logs": [], "locust": [], "doctor": [], "key": ["bob"], "keys": [], "user": ["bob"],
}  # fmt: skip
OF_THE_FILE_ITSELF: dict[str, list[str]] = {
    "up": [], "upgrade": ["v:1"], "images": [], "pin-images": [], "check-config": [], "render": [], "kubernetes": [], "swarm": [],
}  # fmt: skip
WITHOUT_A_CONFIGURATION = {"docker", "admin-key", "docs", "restore"}


def test_every_command_is_in_one_of_the_tables() -> None:
    own = {command.name or command.callback.__name__.replace("_", "-") for command in app.registered_commands}  # type: ignore[union-attr]
    measurements = {program.command for program in PROGRAMS}
    assert own - measurements == {*ON_THE_RUNNING_CLUSTER, *OF_THE_FILE_ITSELF, *WITHOUT_A_CONFIGURATION}


@pytest.mark.parametrize("command", ON_THE_RUNNING_CLUSTER)
def test_a_command_on_the_running_cluster_uses_its_configuration_while_the_file_has_a_problem(
    command: str, config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    docker(tmp_path, monkeypatch, ABSENT)
    monkeypatch.setattr(docker_install, "ensure", lambda: None)
    made(" ".join([command, *ON_THE_RUNNING_CLUSTER[command]]), config, monkeypatch)
    printed = capsys.readouterr()
    assert "pols is not a setting" not in printed.out + printed.err
    if "Docker is not running" not in printed.out:  # `down` needs no configuration then
        assert printed.err.count("is ignored: using the configuration with which the cluster was started") == 1
    if command == "key":
        assert len(printed.out.splitlines()) == 1
        assert (config.parent / "api-keys.yaml").exists()


@pytest.mark.parametrize("command", OF_THE_FILE_ITSELF)
def test_a_command_on_the_file_itself_reports_its_problem(
    command: str, config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    docker(tmp_path, monkeypatch, ABSENT)
    monkeypatch.setattr(docker_install, "ensure", lambda: None)
    assert made(" ".join([command, *OF_THE_FILE_ITSELF[command]]), config, monkeypatch) == 2
    assert "pols is not a setting" in capsys.readouterr().err


def docker(folder: Path, monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    """Docker's client, whose engine does not answer."""
    program = folder / "docker"
    program.write_text(
        f'#!/bin/sh\ncase "$*" in --version) echo Docker version 28.5.2 ;; *version*) echo 2.40.3 ;; *) echo "{said}" >&2; exit 1 ;; esac\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def made(action: str, config: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """The exit code."""
    monkeypatch.setattr(sys, "argv", ["manyeyes", *action.split(), "--config", str(config)])
    with pytest.raises(SystemExit) as ended:
        run()
    return int(ended.value.code or 0)


@pytest.mark.parametrize("action", ["down", "clean", "status", "scale", "drain", "restart-rolling"])
@pytest.mark.parametrize("why", [CLOSED, "error during connect: Get http://docker: context deadline exceeded"])
def test_where_docker_cannot_be_asked_the_cluster_may_run(
    config: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    action: str,
    why: str,
) -> None:
    config.write_text(CLUSTER)
    docker(tmp_path, monkeypatch, why)
    assert made(f"{action} e" if action == "drain" else action, config, monkeypatch) == 2
    said = capsys.readouterr().out
    assert f"Docker is not accessible, so it is unknown whether the cluster runs: {why}" in said
    assert "group docker" in said
    assert "ok  " not in said


def test_where_no_docker_runs_nothing_is_up(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config.write_text(CLUSTER)
    docker(tmp_path, monkeypatch, ABSENT)
    assert made("down", config, monkeypatch) == 0
    assert "Docker is not running" in capsys.readouterr().out
    assert made("status", config, monkeypatch) == 2


def test_a_program_that_fails_is_told_in_its_own_words_without_a_traceback(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*arguments: object, **more: object) -> None:
        raise CommandFailed(["docker", "compose", "config"], 1, "failed to read .env: line 3: unexpected character\n")

    monkeypatch.setattr("manyeyes.cli.up.up", fail)
    assert made("up", config, monkeypatch) == 2
    said = capsys.readouterr().out
    assert "`docker compose config` failed: failed to read .env: line 3: unexpected character" in said


def test_a_program_in_a_folder_that_cannot_be_read_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **more: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("manyeyes.cli.process.subprocess.Popen", refuse)
    assert not process.succeeds(["anything"])
