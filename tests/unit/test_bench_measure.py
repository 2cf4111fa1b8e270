"""Counters, percentiles, and what processes cost."""

import sys
import time
from pathlib import Path

import pytest

from benchmarks.load import LoadReport, busiest_core_share, join_reports
from benchmarks.measurements import counter_increase, hit_ratio, read_counters
from loadtest.host_info import CpuTime, cpu_s, members, memory_mb, read_cpu_time, start_process_group
from loadtest.statistics import median, percentile
from manyeyes.devcluster.eventually import eventually

HITS, QUERIES = "vllm:prefix_cache_hits_total", "vllm:prefix_cache_queries_total"


def test_counters_are_summed_over_labels_and_compared_over_time() -> None:
    text = f'{HITS}{{engine="0",model_name="m"}} 30.0\n{HITS}{{engine="1"}} 1e1\n# HELP {QUERIES} x\n{QUERIES}{{engine="0"}} 50.0\n'
    before, after = read_counters(""), read_counters(text)
    assert (after[HITS], after[QUERIES]) == (40, 50)
    assert hit_ratio(counter_increase([before, before], [after, after]), HITS, QUERIES) == 0.8
    assert hit_ratio([before], HITS, QUERIES) == 0


@pytest.mark.parametrize(("share_of", "value"), [(0, 1), (0.5, 2.5), (1, 4), (0.9, 3.7)])
def test_percentiles_lie_between_neighbours_in_proportion(share_of: float, value: float) -> None:
    assert percentile([4, 1, 3, 2], share_of) == pytest.approx(value)


def test_no_values_have_no_median_and_that_is_0() -> None:
    assert median([]) == 0


def test_reports_of_several_processes_become_one() -> None:
    one = LoadReport(10, 20, [1], [2], [0.1], {"status 502": 1}, 5, 1.0)
    two = LoadReport(11, 22, [3], [4], [0.2], {"status 502": 2, "TimeoutError": 1}, 6, 9.0)
    both = join_reports([one, two])
    assert (both.started_s, both.ended_s, both.first_s, both.tokens) == (10, 22, [1, 3], 11)
    assert both.errors == {"status 502": 3, "TimeoutError": 1}
    assert busiest_core_share([one, two]) == pytest.approx(9 / 11)


def test_the_machine_is_busy_by_the_share_of_its_cores_that_worked() -> None:
    assert CpuTime(worked_s=3, passed_s=10).share_since(CpuTime(worked_s=1, passed_s=6)) == 0.5
    assert read_cpu_time().passed_s > 0


CHILD = "import time\nwhile time.process_time() < 0.3: pass\nprint('worked', flush=True)\ntime.sleep(60)"


def test_cpu_and_memory_of_children_count_and_all_end_together(tmp_path: Path) -> None:
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {CHILD!r}])"
    log = tmp_path / "log"
    with start_process_group([sys.executable, "-c", parent], log) as session:
        eventually(lambda: "worked" in log.read_text(), 30, 0.05, "the child worked")
        pids = members(session)
        assert len(pids) == 2
        assert 0.3 <= cpu_s([session]) <= 3
        assert 5 <= memory_mb([session]) <= 200
        quiet = cpu_s([session])
        time.sleep(0.1)
        assert cpu_s([session]) - quiet < 0.05
    assert members(session) == []
