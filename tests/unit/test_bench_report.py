"""What the report makes of raw results: medians, targets met or not, and nothing dropped in silence."""

import xml.etree.ElementTree as ElementTree
from typing import Any

import pytest

from benchmarks.report import page
from benchmarks.results import OURS, BenchmarkResults, targets
from benchmarks.runner import NO_GATEWAY, BenchmarkJob, JobResult
from benchmarks.tables import draw_chart


def worked(rps: float, first_s: float, share: float, **more: Any) -> dict[str, Any]:
    found = dict.fromkeys(("first_p95_s", "first_p99_s", "total_p50_s", "total_p95_s", "total_p99_s", "gap_p50_s"), 0.5)
    usual = {"answered": 100, "failed": 0, "errors": {}, "busiest_engine": 0.34, "gateway_cpu_s": 0.1}
    limits = {"gateway_memory_mb": 20.0, "users_core_share": 0.1, "machine_share": 0.5}
    return {
        **found,
        **usual,
        **limits,
        "rps": rps,
        "first_p50_s": first_s,
        "first_p99_s": 3 * first_s,
        "prefix_share": share,
        **more,
    }


def results(*finished: JobResult, missing: dict[str, str] | None = None) -> BenchmarkResults:
    machine = {"cpu": "a CPU", "cores": 2, "memory_gib": 8, "system": "Debian", "commit": "abc", "date": "2026-11-21"}
    about = {
        "machine": {**machine, "command": "python -m benchmarks"},
        "extent": {"speed": 1.0, "users_share": 1.0, "conversations_share": 1.0},
        "quick": False,
        "versions": {OURS: "this commit", "HAProxy leastconn": "3.2"},
        "missing": missing or {},
    }
    return BenchmarkResults(about, finished)


def chat(gateway: str, repeat: int, *values: float, **more: Any) -> JobResult:
    return JobResult(BenchmarkJob("work", gateway, 3, repeat, "chat"), worked(*values, **more))


BEST = JobResult(BenchmarkJob("best", NO_GATEWAY, 3, 0, "chat"), {"prefix_share": 0.8})


def found(made: BenchmarkResults) -> dict[str, tuple[str, bool | None]]:
    return {target.label: (target.measured, target.met) for target in targets(made)}


@pytest.mark.parametrize(
    ("rps", "first_s", "share", "met"), [(60.0, 0.05, 0.79, [True] * 4), (50.0, 0.06, 0.78, [False] * 4)]
)
def test_chat_targets_compare_with_the_fastest_other_and_never_with_the_bound(
    rps: float, first_s: float, share: float, met: list[bool]
) -> None:
    made = results(
        BEST,
        chat(OURS, 0, rps, first_s, share),
        chat(NO_GATEWAY, 0, 99.0, 0.01, 0.8),
        chat("slow", 0, 20.0, 0.01, 0.8),
        chat("HAProxy leastconn", 0, 45.0, 0.1, 0.5),
    )
    chats = [target for target in targets(made) if target.label.startswith("chat")]
    assert [target.met for target in chats] == met
    assert all("HAProxy" in target.measured for target in chats[:3])
    assert chats[1].measured.endswith("; without any gateway 0.10")


def test_what_was_not_measured_is_neither_met_nor_missed() -> None:
    assert {met for _, met in found(results(chat(OURS, 0, 60.0, 0.1, 0.8))).values()} == {None}


def test_cpu_is_compared_with_the_cheapest_policy_at_each_size() -> None:
    def cpu(gateway: str, *costs: float) -> JobResult:
        sizes = zip(("3 KB", "200 KB", "2 MB"), costs, strict=True)
        more = {"idle_share": 0.0, "memory_mb": 9.0}
        return JobResult(
            BenchmarkJob("cpu", gateway, 3, 0),
            {s: {"cpu_us": us, "parts_us": {"nginx": us}, **more} for s, us in sizes},
        )

    made = results(cpu(OURS, 80, 400, 5000), cpu("vllm-router a", 120, 390, 6000), cpu("vllm-router b", 90, 500, 7000))
    said = [value for what, value in found(made).items() if what.startswith("CPU")]
    assert said == [("80 against 90 µs", True), ("400 against 390 µs", False), ("5,000 against 6,000 µs", True)]


def test_the_middle_of_three_repeats_and_their_spread_are_shown() -> None:
    made = results(BEST, *(chat(OURS, n, rps, 0.1, 0.8) for n, rps in enumerate((40.0, 46.0, 44.0))))
    assert "44.0 (40.0-46.0)" in page(made, "runs.jsonl")


def test_a_gateway_that_is_missing_or_fails_is_named_with_the_reason() -> None:
    failed = JobResult(BenchmarkJob("work", "broken", 3, 0, "chat"), {}, failed="RuntimeError: no answer")
    made = results(chat(OURS, 0, 60.0, 0.1, 0.8), failed, missing={"absent": "not installed: no wheel"})
    text = page(made, "runs.jsonl")
    assert "* absent: not installed: no wheel" in text
    assert "* broken: RuntimeError: no answer" in text
    assert "| broken |" in text


def test_a_run_that_went_well_in_the_end_is_not_called_failed() -> None:
    failed = JobResult(BenchmarkJob("work", "late", 3, 0, "chat"), {}, failed="RuntimeError: no answer")
    text = page(results(chat(OURS, 0, 60.0, 0.1, 0.8), failed, chat("late", 0, 30.0, 0.1, 0.5)), "runs.jsonl")
    assert "no answer" not in text


def test_what_limited_a_run_is_said_below_its_table() -> None:
    made = results(chat(OURS, 0, 60.0, 0.1, 0.8, users_core_share=0.9, machine_share=0.99, errors={"status 502": 3}))
    text = page(made, "runs.jsonl")
    assert "the generator was the limit" in text
    assert "the machine was the limit" in text
    assert "3 with status 502" in text


def test_the_picture_is_an_svg_that_names_every_gateway() -> None:
    with_header = JobResult(BenchmarkJob("work", "HAProxy leastconn", 3, 0, "chat", 1), worked(50, 0.1, 0.8))
    made = results(
        chat(OURS, 0, 60.0, 0.1, 0.8),
        chat(NO_GATEWAY, 0, 70.0, 0.1, 0.8),
        chat("HAProxy leastconn", 0, 45.0, 0.2, 0.5),
        with_header,
    )
    drawn = ElementTree.fromstring(draw_chart(made, 3))
    words = [element.text for element in drawn.iter() if element.tag.endswith("text")]
    assert words.count("HAProxy leastconn") == 2
    assert OURS in words
    assert draw_chart(results(), 3) == ""
