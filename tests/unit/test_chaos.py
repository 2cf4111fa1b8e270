"""Faults as data, and what is counted of them: the report's figures are what users and the gateway's log say."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.chaos import experiment
from benchmarks.chaos.faults import Fault, FaultPart, choose_faults, fault_table
from benchmarks.chaos.load import RetriedRequest
from benchmarks.chaos.report import ChaosRun, FaultResult, FaultTimes, fault_result, log_lines_by_id, markdown, page
from benchmarks.chaos.soak import measure_growth
from loadtest.statistics import Sample
from manyeyes.charts.svg import draw_panels
from manyeyes.cli.host_info import Docker

KILL = Fault("kill-a", "a is killed", "kill", ("a",), "begun")
TIMES = FaultTimes(began_s=100, injected_s=110, recovered_s=115, ended_s=125)


def sample(name: str, ended_s: float, **more: Any) -> Sample:
    facts: dict[str, Any] = {
        "scenario": "chat", "user": 0, "turn": 0, "late_s": 0.0, "first_s": 0.1, "total_s": 1.0, "tokens": 5, "prompt_tokens": 5,
        "cached_tokens": 0, "video": False, "status": 200, "failed": "", "engine": "b",
    }  # fmt: skip
    return Sample(**(facts | {"began_s": ended_s - 1.0, "id": f"lt-{name}"} | more))


def line(name: str, status: int = 200, attempts: str = "10.0.0.1:8000") -> str:
    return json.dumps({"event": "request", "request": f"lt-{name}", "status": status, "attempts": attempts})


def seen(fault: Fault, *samples: Sample, log: str = "", tried: tuple[RetriedRequest, ...] = ()) -> FaultResult:
    return fault_result(fault, TIMES, samples, tried, log_lines_by_id(log))


def test_requests_are_counted_from_the_strike_to_the_last_look() -> None:
    one = seen(KILL, sample("early", 109), sample("a", 111), sample("b", 120), sample("late", 126))
    assert (one.answered, one.failed, one.cut) == (2, 0, 0)
    assert one.whole_again_s == 5


def test_what_broke_after_its_first_byte_is_cut_and_before_it_failed() -> None:
    one = seen(
        KILL,
        sample("a", 111, failed="connection cut", engine="a"),
        sample("b", 111, failed="finish_reason abort", engine="a"),
        sample("c", 112, failed="status 503", status=503),
        sample("d", 113, failed="Connection refused", status=0),
    )
    assert (one.answered, one.failed, one.cut) == (0, 2, 2)
    assert one.users_recovered_s == 3
    assert one.why == {"status 503": 1, "Connection refused": 1, "connection cut": 1, "finish_reason abort": 1}


def test_one_id_answered_twice_and_one_handed_on_are_told_apart() -> None:
    log = "\n".join(
        [line("a"), line("a"), line("b", attempts="10.0.0.1:8000, 10.0.0.2:8000"), line("c", 502), line("c")]
    )
    one = seen(KILL, sample("a", 111), sample("b", 111), sample("c", 112), sample("d", 112), log=log)
    assert (one.twice, one.handed_on, one.unlogged) == (1, 1, 1)


def test_a_log_that_cannot_be_read_is_no_finding() -> None:
    one = fault_result(KILL, TIMES, [sample("a", 111)], (), None)
    assert (one.twice, one.unlogged) == (0, 0)


@pytest.mark.parametrize(
    "text",
    [
        '{"request": "lt-a", "stat',
        '{"request": "lt-a"}',
        '{"request": "other", "status": 200}',
        "lt-a",
        '{"request": 5, "x": "lt-", "status": 1}',
    ],
)
def test_lines_that_are_cut_or_of_others_are_left_out(text: str) -> None:
    assert log_lines_by_id(text) == {}


@pytest.mark.parametrize(
    ("costs", "bad", "kept"),
    [
        ("nothing", {}, True),
        ("nothing", {"failed": "connection cut", "engine": "a"}, False),
        ("begun", {"failed": "connection cut", "engine": "a"}, True),
        ("begun", {"failed": "connection cut", "engine": "b"}, False),
        ("begun", {"failed": "status 503", "status": 503}, False),
        ("in flight", {"failed": "status 503", "status": 503}, True),
    ],
)
def test_a_fault_may_cost_what_its_row_says_and_no_more(costs: Any, bad: dict[str, Any], kept: bool) -> None:
    one = seen(Fault("x", "x", "kill", ("a",), costs), sample("a", 111, **bad))
    assert (not one.broken) is kept


def test_a_failure_long_after_everything_is_back_is_never_allowed() -> None:
    one = seen(Fault("x", "x", "kill", ("gateway",), "in flight"), sample("a", 124, failed="status 503", status=503))
    assert "after the cluster had recovered" in one.broken


def test_a_client_that_asks_again_is_counted_by_what_it_had_to_do() -> None:
    tried = (
        RetriedRequest(110, 111, 1, True),
        RetriedRequest(111, 113, 2, True),
        RetriedRequest(112, 116, 3, False),
        RetriedRequest(90, 91, 3, False),
    )
    one = seen(KILL, tried=tried)
    assert (one.patient_asked, one.patient_asked_again, one.patient_lost) == (3, 2, 1)
    assert one.users_recovered_s == 2


def parts(
    *engines: tuple[str, str], more: tuple[str, ...] = ("gateway", "controller", "prometheus", "webui")
) -> list[FaultPart]:
    return [*(FaultPart(name, pool) for name, pool in engines), *(FaultPart(name) for name in more)]


def test_every_part_that_runs_is_killed_once_and_the_engine_that_is_alone_may_cost_requests() -> None:
    faults = fault_table(parts(("a", "p"), ("b", "p"), ("c", "q")))
    killed = [fault.services for fault in faults if fault.action == "kill"]
    assert sorted(killed) == sorted((name,) for name in ("a", "b", "c", "controller", "prometheus", "webui", "gateway"))
    costs = {fault.name: fault.costs for fault in faults}
    assert (costs["kill-a"], costs["kill-c"], costs["kill-controller"], costs["kill-gateway"]) == (
        "begun", "in flight", "nothing", "in flight",
    )  # fmt: skip


def test_faults_are_chosen_by_name_and_a_wrong_name_lists_the_right_ones() -> None:
    faults = fault_table(parts(("a", "p"), ("b", "p")))
    assert [fault.name for fault in choose_faults(faults, "kill-b, dns-away")] == ["kill-b", "dns-away"]
    with pytest.raises(ValueError, match=r"unknown fault kill-z\. Use kill-a, kill-b"):
        choose_faults(faults, "kill-z")


def test_the_report_says_what_was_not_kept_and_escapes_what_it_shows() -> None:
    about = ChaosRun("a<b", True, "2 users", "a machine", "python -m benchmarks.chaos", "interrupted by Ctrl-C")
    outcomes = [seen(KILL, sample("a", 111, failed="status 503", status=503)), seen(KILL, sample("b", 111))]
    text, html = markdown(about, outcomes), page(about, outcomes)
    for told in (text, html):
        assert "expected to lose only answers that had begun, but 1 failed" in told
        assert "interrupted by Ctrl-C" in told
        assert "1 of 2" in told
        assert "Emulated" in told
    assert "<b>" in html
    assert "a&lt;b" in html
    assert "a<b" not in html


def test_a_report_of_nothing_is_a_report() -> None:
    about = ChaosRun("a", False, "2 users", "a machine", "python -m benchmarks.chaos", "interrupted by Ctrl-C")
    assert "0 of 0" in markdown(about, [])
    assert "0 faults" in page(about, [])


def test_memory_that_leaks_grows_and_memory_that_settles_does_not() -> None:
    leak = [(10.0 * n, 100 + 0.2 * n) for n in range(360)]
    settled = [(10.0 * n, 100 - 40 * 0.5 ** (n / 10) + n % 3) for n in range(360)]
    assert measure_growth(leak, 5).grows
    assert measure_growth(leak, 5).an_hour == pytest.approx(72)
    assert not measure_growth(settled, 5).grows
    assert not measure_growth(leak[:60], 5).grows, "ten minutes say nothing"
    assert not measure_growth([(0.0, 5.0)], 5).grows
    assert not measure_growth([], 5).grows


def test_a_cluster_that_is_not_emulated_is_struck_only_by_who_confirms_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "cluster.yaml").write_text("pools: [{name: a, model: org/A}]\n")
    monkeypatch.setattr("manyeyes.cli.host_info.docker", lambda: Docker(server="28.0"))
    monkeypatch.setattr("benchmarks.chaos.experiment.ClusterContainers.parts", lambda self: parts(("a", "p")))
    monkeypatch.setattr("benchmarks.chaos.experiment.ClusterContainers.flavours", lambda self: {"cuda"})
    monkeypatch.setattr("benchmarks.chaos.experiment.GatewayClient.ready", lambda self, model: "a")
    monkeypatch.setattr("benchmarks.chaos.experiment.GatewayClient.up", lambda self: {"a"})
    config = tmp_path / "cluster.yaml"
    assert experiment.find_target(config, "", "", confirmed=True).engines == {"a"}
    with pytest.raises(
        experiment.UnfitTarget,
        match=r"has cuda engines, and the faults would affect its users\. Confirm with CONFIRM=yes",
    ):
        experiment.find_target(config, "", "", confirmed=False)


def test_figures_over_time_are_drawn_with_their_names_also_when_there_are_none() -> None:
    svg = draw_panels({"Memory, MB": {"a<b": [(0.0, 1.0), (60.0, 2.0)], "c": []}, "Open files": {}})
    assert svg.count("<path ") == 1
    assert "a&lt;b" in svg
    assert "1 min" in svg
