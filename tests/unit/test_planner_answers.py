"""What `manyeyes plan` answers: numbers of GPUs, the breaking point, pages, and one line for each wrong value."""

from pathlib import Path

import pytest

from manyeyes.planner.__main__ import main
from manyeyes.planner.workload import PREFILL, PREPROCESSING, STAGES, SimulationResult, lost_time_by_resource

QUICK = ["--requests", "400", "--output-tokens", "40", "--pool", "qwen3-vl-4b"]


def plan(tmp_path: Path, *more: str) -> int:
    return main(["plan", *QUICK, "--out", str(tmp_path), *more])


def test_a_plan_says_how_many_gpus_where_it_breaks_and_what_it_costs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert plan(tmp_path, "--rps", "20", "--p95", "2", "--price", "0.4") == 0
    said = capsys.readouterr().out
    assert "GPUs are enough" in said
    assert "The limit is" in said
    assert "Estimate: simulated" in said
    page, text = (tmp_path / "plan.html").read_text(), (tmp_path / "plan.md").read_text()
    assert "cost per million images" in text
    assert "No GPU was used" in text
    assert "<svg" in page
    assert "http" not in page.replace("http://www.w3.org", "")


def test_fewer_gpus_than_are_needed_are_not_enough_and_more_work_needs_more(tmp_path: Path) -> None:
    assert plan(tmp_path, "--rps", "20", "--p95", "2", "--gpus", "1") == 1
    assert "1 GPU is not enough" in (tmp_path / "plan.md").read_text()
    assert plan(tmp_path, "--rps", "20", "--p95", "2", "--gpus", "12") == 0


def test_an_objective_that_no_gpu_can_meet_is_said_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert plan(tmp_path, "--rps", "1", "--p95", "0.05") == 1
    error = capsys.readouterr().err
    assert "No number of GPUs reaches a P95 of 0.05 s" in error
    assert error.strip().count("\n") == 0


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ([], "RPS= is missing"),
        (["--rps", "0"], "expected a number of at least 0.001, got '0'"),
        (["--rps", "many"], "got 'many'"),
        (["--rps", "1", "--image", "1280"], "expected WIDTHxHEIGHT in pixels, like 1280x720"),
        (["--rps", "1", "--image", "0x720"], "expected WIDTHxHEIGHT"),
        (["--rps", "1", "--pool", "nobody"], "there is no such pool; known: qwen3-vl-8b, qwen3-vl-4b"),
        (["--rps", "1", "--gpu", "voodoo2"], "there is no profile of"),
        (["--rps", "1", "--gpu", "nowhere.yaml"], "No such file"),
        (["--rps", "1", "--turns", "150"], "max_model_len"),
        (["--rps", "1", "--images", "17"], "takes at most 16"),
        (["--rps", "1", "--policy", "best"], "invalid choice"),
        (["--rps", "1", "--config", "nowhere.yaml"], "nowhere.yaml"),
        (["--rps", "1", "--goodput", "2"], "from 0.001 to 1"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_value_is_one_line_and_exit_code_2(
    wrong: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = plan(tmp_path, *wrong)
    except SystemExit as end:
        code = int(str(end.code))
    error = capsys.readouterr().err
    assert code == 2
    assert says in error
    assert error.strip().count("\n") == 0


def test_policies_are_compared_on_the_same_users(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = ["--engines", "20", "--rps", "60", "--requests", "2000", "--turns", "3", "--think-s", "2", "--p95", "2"]
    wanted = ["--policies", "sticky,random", "--processes", "1", "--out", str(tmp_path), "--pool", "qwen3-vl-4b"]
    assert main(["policies", *more, *wanted]) == 0
    text = (tmp_path / "policies.md").read_text()
    assert "| sticky |" in text
    assert "| random |" in text
    assert "Written" in capsys.readouterr().out


def outcome(stages: dict[str, float], waited: dict[str, float] | None = None, prefill: float = 0.0) -> SimulationResult:
    found = SimulationResult(1, 1.0, prefill_share=prefill, waited_s=waited or {})
    found.total_s.append(sum(stages.values()))
    found.stages_s = [stages.get(name, 0.0) for name in STAGES]
    return found


def test_time_is_lost_to_what_requests_wait_for() -> None:
    idle = outcome({"preprocessing": 0.1, "answer": 1.0})
    loaded = outcome({"preprocessing wait": 2.0, "preprocessing": 0.1, "queue": 0.5, "answer": 1.0}, {"budget": 3.0})
    assert list(lost_time_by_resource(loaded, idle).items()) == [(PREPROCESSING, 2.0), (PREFILL, 0.5)]


def test_nothing_is_lost_on_an_idle_engine() -> None:
    idle = outcome({"preprocessing": 0.1, "answer": 1.0}, prefill=0.3)
    assert lost_time_by_resource(idle, idle) == {}
