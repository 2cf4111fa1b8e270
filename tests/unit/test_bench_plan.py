"""The order of measurements, and that a finished one is known again."""

from pathlib import Path

from benchmarks import gateways as all_gateways
from benchmarks.results import OURS
from benchmarks.runner import (
    NO_GATEWAY,
    BenchmarkJob,
    BenchmarkSelection,
    JobResult,
    plan_jobs,
    read_job_results,
)
from loadtest.result_files import append_line


def wanted(repeats: int = 3, headers: tuple[int, ...] = (0, 1, 2)) -> BenchmarkSelection:
    kinds = ("work", "cpu", "latency", "stream")
    return BenchmarkSelection(kinds, ("chat", "images", "document", "text"), (3, 8), headers, repeats)


def test_repeats_are_interleaved_and_start_with_another_gateway_each_time() -> None:
    jobs = [job for job in plan_jobs(wanted(), all_gateways.ALL) if job.kind == "work" and job.work == "chat"]
    plain = [job for job in jobs if job.engines == 3 and not job.headers]
    by_repeat = [[job.gateway for job in plain if job.repeat == repeat] for repeat in range(3)]
    assert [job.repeat for job in plain] == sorted(job.repeat for job in plain)
    assert len({order[0] for order in by_repeat}) == 3
    assert sorted(by_repeat[0]) == sorted(by_repeat[1]) == sorted(by_repeat[2])
    assert {job.gateway for job in plain} == {gateway.name for gateway in all_gateways.ALL}


def test_no_measurement_is_planned_twice() -> None:
    jobs = plan_jobs(wanted(), all_gateways.ALL)
    assert len(set(jobs)) == len(jobs)


def test_session_headers_go_only_to_gateways_that_have_so_many() -> None:
    for job in plan_jobs(wanted(repeats=1), all_gateways.ALL):
        gateway = next(one for one in all_gateways.ALL if one.name == job.gateway)
        assert job.headers <= len(gateway.headers)
    with_two = {job.gateway for job in plan_jobs(wanted(repeats=1), all_gateways.ALL) if job.headers == 2}
    assert with_two == {"vllm-router consistent_hash", "vllm-router sticky_least_loaded"}


def test_the_names_that_the_report_compares_exist() -> None:
    assert (all_gateways.OURS, all_gateways.BOUND) == (OURS, NO_GATEWAY)


def test_a_finished_job_is_read_back_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "runs.jsonl"
    finished = JobResult(
        BenchmarkJob("work", "one", 3, 0, "chat", 1), {"rps": 4.5, "errors": {"status 502": 1}}, busy_before=0.1
    )
    append_line(file, finished)
    append_line(file, JobResult(BenchmarkJob("cpu", "two", 3, 1), {}, failed="RuntimeError: no"))
    assert next(iter(read_job_results(file))) == finished
    assert [one.failed for one in read_job_results(file)] == ["", "RuntimeError: no"]
