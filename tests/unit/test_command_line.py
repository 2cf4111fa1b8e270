"""The command line `manyeyes`: every command has its help, it works from any folder of a checkout, and names the next command as it was called."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from manyeyes.cli.__main__ import app
from manyeyes.cli.invocation import CALLED_BY_MAKE, next_command
from manyeyes.cli.measurement_commands import BENCHMARKS, PROGRAMS, absolute_path, run_program
from manyeyes.config.checkout import ROOT, find_checkout

COMMANDS = [
    command.name or command.callback.__name__.replace("_", "-")
    for command in app.registered_commands
    if command.callback
]
OWN = sorted({*COMMANDS} - {program.command for program in PROGRAMS})


def manyeyes(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "manyeyes.cli", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "80"}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("command", OWN)
def test_a_command_has_its_help_within_80_columns(command: str) -> None:
    shown = CliRunner(env={"COLUMNS": "80", "TERMINAL_WIDTH": "80"}).invoke(app, [command, "--help"])
    assert shown.exit_code == 0, shown.output
    assert "Usage:" in shown.output
    assert "--config" in shown.output
    assert max(len(line.rstrip()) for line in shown.output.splitlines()) <= 80


@pytest.mark.parametrize("program", [*PROGRAMS, *BENCHMARKS], ids=lambda program: program.command)
def test_a_program_with_other_packages_is_a_module_that_exists(program: object) -> None:
    module = str(program.module).replace(".", "/")  # type: ignore[attr-defined]
    assert (ROOT / f"{module}.py").exists() or (ROOT / module / "__main__.py").exists()


def test_a_program_gets_its_own_help(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = manyeyes("compare", "--help")
    assert (shown.returncode, "fail-on-worse" in shown.stdout) == (0, True), shown.stderr


def test_it_finds_its_cluster_from_a_folder_inside_the_checkout() -> None:
    checked = manyeyes("check-config", cwd=ROOT / "docs")
    assert (checked.returncode, checked.stdout) == (0, "config/cluster.yaml: ok\n"), checked.stderr
    other = manyeyes("check-config", "--config", "../config/examples/emulated.yaml", cwd=ROOT / "docs")
    assert (other.returncode, other.stdout) == (0, "config/examples/emulated.yaml: ok\n"), other.stderr


def test_it_finds_the_checkout_of_the_configuration_that_is_named(tmp_path: Path) -> None:
    checked = manyeyes("check-config", "--config", str(ROOT / "config/cluster.yaml"), cwd=tmp_path)
    assert (checked.returncode, checked.stdout) == (0, "config/cluster.yaml: ok\n"), checked.stderr


def test_a_folder_is_a_checkout_by_its_compose_file_and_its_package(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/compose.yaml").touch()
    assert find_checkout(tmp_path / "a/b") is None
    (tmp_path / "a/manyeyes").mkdir()
    assert find_checkout(tmp_path / "a/b") == tmp_path / "a"


def test_an_unknown_command_ends_with_2() -> None:
    assert CliRunner().invoke(app, ["upp"]).exit_code == 2
    assert CliRunner().invoke(app, ["up", "--flavour", "gpu"]).exit_code == 2


def test_a_program_whose_packages_are_missing_says_what_installs_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    shown = CliRunner().invoke(app, ["loadtest", "--users", "2"])
    assert shown.exit_code == 2
    assert "requirements/environment loadtest" in " ".join(shown.output.split())


def test_the_admin_key_never_goes_to_a_cluster_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[tuple[list[str], dict[str, str]]] = []
    monkeypatch.setattr("os.execve", lambda program, words, environment: started.append((words, environment)))
    monkeypatch.setattr("manyeyes.cli.secrets.read_admin_key", lambda: "secret")
    monkeypatch.delenv("MANYEYES_ADMIN_KEY", raising=False)
    loadtest = next(program for program in PROGRAMS if program.command == "loadtest")
    run_program(loadtest, ["--users=2"])
    run_program(loadtest, ["--users=2", "--url=https://elsewhere.example"])
    here, elsewhere = started
    assert here[0][1:] == ["-m", "loadtest", "--users=2"]
    assert here[1]["MANYEYES_ADMIN_KEY"] == "secret"
    assert "MANYEYES_ADMIN_KEY" not in elsewhere[1]


@pytest.mark.parametrize(
    ("word", "there"),
    [
        ("docs/a.json", "START/docs/a.json"),
        ("--out=docs/a.json", "--out=START/docs/a.json"),
        ("https://a.example/v1", "https://a.example/v1"),
        ("image", "image"),
        ("--slo=first=2,total=5", "--slo=first=2,total=5"),
    ],
)
def test_paths_count_from_where_the_command_was_started(
    word: str, there: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "docs").mkdir()
    monkeypatch.setattr("manyeyes.cli.measurement_commands.STARTED_IN", tmp_path)
    assert absolute_path(word) == there.replace("START", str(tmp_path))


def test_the_next_command_is_written_as_this_one_was_called(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    monkeypatch.delenv(CALLED_BY_MAKE, raising=False)
    assert next_command("status") == "manyeyes status"
    assert next_command("status", config=Path("my.yaml")) == "manyeyes status --config my.yaml"
    monkeypatch.setenv(CALLED_BY_MAKE, "1")
    assert next_command("status") == "make status"
    assert next_command("down", config=Path("my own.yaml")) == "make down CONFIG='my own.yaml'"
    assert next_command("admin-key", config=Path("my.yaml")) == "manyeyes admin-key --config my.yaml"
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert next_command("admin-key") == ".venv/bin/manyeyes admin-key"


def test_no_option_of_make_is_lost_on_its_way() -> None:
    def printed(*words: str) -> str:
        return subprocess.run(["make", "-n", *words], cwd=ROOT, check=True, capture_output=True, text=True).stdout

    assert "logs --config 'my.yaml' --part='gateway' --since='5m' --raw --no-follow" in " ".join(
        printed("logs", "CONFIG=my.yaml", "PART=gateway", "SINCE=5m", "RAW=1", "FOLLOW=no").split()
    )
    assert "up --config 'config/cluster.yaml' --flavour='cpu'" in printed("up", "FLAVOUR=cpu")
    assert "scale --config 'config/cluster.yaml' --pool='a' -- '2'" in printed("scale", "N=2", "POOL=a")


def test_settings_of_the_env_file_count_and_the_environment_wins(tmp_path: Path) -> None:
    file = tmp_path / "env"
    file.write_text("# mine\nSECRETS_DIR='nowhere/a b' # of the file\n")
    environment = {**os.environ, "MANYEYES_ENV_FILE": str(file)}
    environment.pop("SECRETS_DIR", None)
    for more, folder in (({}, "nowhere/a b"), ({"SECRETS_DIR": "elsewhere"}, "elsewhere")):
        command = [sys.executable, "-m", "manyeyes.cli", "admin-key"]
        ended = subprocess.run(
            command, cwd=ROOT, env={**environment, **more}, capture_output=True, text=True, timeout=60
        )
        assert (ended.returncode, f"/{folder}/admin.key" in ended.stdout) == (2, True), ended.stdout
