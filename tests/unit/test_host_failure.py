"""A part that does not start: its root cause is named, with one thing to do, and its log is kept before anything is removed."""

import re
import stat
from pathlib import Path
from typing import Any

import pytest

from manyeyes.cli import readiness, start_failure, up
from manyeyes.cli.compose import Compose
from manyeyes.cli.process import CommandFailed
from manyeyes.cli.start_failure import OUT_OF_MEMORY, remedy, root_cause
from manyeyes.cli.terminal import CliError, Step
from tests.placed import placed

LOGS = sorted((Path(__file__).parent / "engine_logs").glob("*.log"))
CLUSTER = placed(
    "pools: [{name: a, model: m}, {name: b, model: n}]\nengines:\n"
    "  - {name: gpu-0, pool: a, gpus: [0]}\n  - {name: gpu-1, pool: a, gpus: [1]}\n  - {name: gpu-2, pool: b, gpus: [2]}\n"
)
NO_MEMORY = "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization`."


class Fake(Compose):
    """Containers in given states, with given logs."""

    def __init__(self, states: dict[str, str], logs: dict[str, str]) -> None:
        self.project, self.states, self.said = "p", states, logs
        self.ended = {"OOMKilled": False, "ExitCode": 1}

    def containers(self) -> list[dict[str, Any]]:
        return [{"Service": name, "State": state} for name, state in self.states.items()]

    def inspect(self, service: str) -> list[dict[str, Any]]:
        return [{"State": self.ended, "RestartCount": readiness.MAX_RESTARTS}]

    def __call__(self, *arguments: str, **more: object) -> str:
        return self.said.get(arguments[-1], "") if arguments[0] == "logs" else ""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(start_failure, "FOLDER", tmp_path / "logs")
    return tmp_path / "logs"


def log_of(path: Path) -> tuple[str, str]:
    """(what must be found, the log)."""
    wanted, _, log = path.read_text().partition("\n")
    return wanted, log


@pytest.mark.parametrize("path", LOGS, ids=lambda path: path.stem)
def test_the_root_cause_is_found_before_all_that_follows_from_it(path: Path) -> None:
    wanted, log = log_of(path)
    trouble = start_failure.explain_failure(Fake({}, {"gpu-0": log}), "gpu-0", "gpu-0 exits repeatedly")
    [said] = trouble.problems
    assert said.startswith(f"gpu-0 exits repeatedly: {wanted}")
    assert wanted in trouble.details
    assert "Engine core initialization failed" not in said
    assert bool(remedy(wanted)) is (not path.stem.startswith("unknown"))
    assert remedy(wanted) in said


@pytest.mark.parametrize(
    ("line", "do"),
    [
        ("OSError: [Errno 98] Address already in use", "ss -ltnp"),
        ("OSError: [Errno 28] No space left on device", "docker system df"),
        ("RuntimeError: unable to write to file </torch_1>: not enough shared memory", "shm_gb"),
        ("huggingface_hub.errors.GatedRepoError: 401 Client Error.", "HF_TOKEN"),
        ("ValueError: The `fp8` quantization method no longer supports online quantization.", "quantization"),
        ("nvidia-container-cli: requirement error: unsatisfied condition: cuda>=13.0", "driver 580"),
        ('could not select device driver "nvidia" with capabilities: [[gpu]]', "nvidia-container-toolkit"),
    ],
)
def test_a_known_sentence_has_one_remedy(line: str, do: str) -> None:
    assert root_cause(["Starting", line, "Exiting"])[0] == line
    assert do in remedy(line)


def test_a_cause_is_found_in_json_lines_of_the_downloader_and_the_controller() -> None:
    line = '{"at":"2026-11-30T03:00:00.000Z","level":"error","part":"models","event":"download_failed","sentence":"org/A requires a licence. Accept it on the hub, then set HF_TOKEN in .env"}'
    [said] = start_failure.explain_failure(Fake({}, {"models": line}), "models", "models failed").problems
    assert "org/A requires a licence" in said
    line = '{"level":"error","part":"controller","event":"said","message":"stopped","exception":"Traceback (most recent call last):\\n  File \\"x.py\\", line 1\\nPermissionError: [Errno 13] /state"}'
    [said] = start_failure.explain_failure(Fake({}, {"controller": line}), "controller", "controller failed").problems
    assert "PermissionError: [Errno 13] /state" in said


@pytest.mark.parametrize(("killed", "code"), [(True, 137), (False, 137), (True, 1)])
def test_a_process_that_linux_ended_for_memory_is_told(killed: bool, code: int) -> None:
    compose = Fake({"gpu-0": "restarting"}, {"gpu-0": "Loading weights"})
    compose.ended = {"OOMKilled": killed, "ExitCode": code}
    [said] = start_failure.explain_failure(compose, "gpu-0", "it ended").problems
    assert OUT_OF_MEMORY in said
    assert "memory_gb" in said


def test_without_a_cause_the_last_lines_are_shown_and_where_the_rest_is() -> None:
    log = "".join(f"line {number}\n" for number in range(500))
    trouble = start_failure.explain_failure(Fake({}, {"gpu-0": log}), "gpu-0", "gpu-0 exits repeatedly")
    assert trouble.details.splitlines() == [f"line {number}" for number in range(475, 500)]
    assert re.search(r"The whole log: \S+/gpu-0\.log\.", trouble.problems[0])


def test_the_whole_log_is_kept_and_closed_to_others(folder: Path) -> None:
    log = "".join(f"line {number}\n" for number in range(5000))
    start_failure.explain_failure(Fake({}, {"gpu-0": log}), "gpu-0", "it ended")
    [kept] = folder.rglob("gpu-0.log")
    assert kept.read_text() == log
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600


def test_logs_that_cannot_be_read_hide_no_failure() -> None:
    class Broken(Fake):
        def __call__(self, *arguments: str, **more: object) -> str:
            raise CommandFailed(["docker"], 1, "no such service")

    [said] = start_failure.explain_failure(Broken({}, {}), "gpu-0", "gpu-0 exits repeatedly").problems
    assert said == "gpu-0 exits repeatedly. `make logs PART=gpu-0` shows the log."


def waited(compose: Fake, states: dict[str, str], monkeypatch: pytest.MonkeyPatch, deadline_s: float = 60) -> Step:
    monkeypatch.setattr(readiness, "engine_states", lambda cluster: states)
    current = Step("starting engines")
    readiness.wait_until_up(CLUSTER, compose, current, deadline_s, {"gpu-0", "gpu-1", "gpu-2"})
    return current


def test_one_failed_engine_beside_others_of_its_pool_is_named_and_the_rest_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    compose = Fake({"gpu-0": "running", "gpu-1": "restarting", "gpu-2": "running"}, {"gpu-1": NO_MEMORY})
    current = waited(compose, {"gpu-0": "up", "gpu-2": "up"}, monkeypatch)
    assert current.outcome == "2 engines up, not up: gpu-1"
    assert f"gpu-1 exits repeatedly: {NO_MEMORY}" in capsys.readouterr().out


def test_a_pool_without_an_engine_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    compose = Fake({"gpu-0": "running", "gpu-1": "running", "gpu-2": "restarting"}, {"gpu-2": NO_MEMORY})
    with pytest.raises(CliError, match="gpu-2 exits repeatedly: ValueError: No available memory"):
        waited(compose, {"gpu-0": "up", "gpu-1": "up"}, monkeypatch)


def test_the_last_engine_of_a_pool_that_fails_after_the_other_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    compose = Fake({"gpu-0": "restarting", "gpu-1": "restarting", "gpu-2": "running"}, {"gpu-1": NO_MEMORY})
    with pytest.raises(CliError, match="gpu-1 exits repeatedly"):
        waited(compose, {"gpu-2": "up"}, monkeypatch)


def test_an_engine_that_is_too_slow_is_a_failure_only_where_its_pool_has_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compose = Fake(dict.fromkeys(("gpu-0", "gpu-1", "gpu-2"), "running"), {})
    assert waited(compose, {"gpu-0": "up", "gpu-2": "up"}, monkeypatch, -1).outcome.endswith("not up: gpu-1")
    with pytest.raises(CliError, match="gpu-2: not up within"):
        waited(compose, {"gpu-0": "up", "gpu-1": "up"}, monkeypatch, -1)


def test_all_logs_are_kept_before_containers_are_removed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compose = Fake(dict.fromkeys(("gateway", "controller", "gpu-0", "models"), "exited"), {"gpu-0": "x", "models": "y"})
    up._save_all_logs(compose)
    assert sorted(path.stem for path in folder.rglob("*.log")) == ["controller", "gateway", "gpu-0", "models"]
    assert "the logs of the containers were saved" in capsys.readouterr().out
