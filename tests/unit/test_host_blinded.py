"""A wrong configuration file or a Docker that cannot be asked keeps nobody from looking, and is never taken for "nothing runs"."""

import os
import sys
from pathlib import Path

import pytest

from manyeyes.cli import backup, env_file, process, started_services
from manyeyes.cli.__main__ import run
from manyeyes.cli.compose import Compose
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
    said = capsys.readouterr().out
    assert "pols is not a setting" in said
    assert "using the configuration with which the cluster was started" in said


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
