from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from loadtest import compare
from loadtest.result_files import append_line
from loadtest.scaling_report import report, wording
from loadtest.scaling_report.measure import GpuUseSampler
from loadtest.scaling_report.results import (
    ClusterVisit,
    Phase,
    PhaseResult,
    PhaseSettings,
    Thresholds,
    missed_thresholds,
    phases,
    read_good_results,
    read_results,
    summarize,
    visits,
)
from loadtest.scaling_report.wording import report_rows
from loadtest.statistics import RunFigures, Spread, Window, spread
from manyeyes.charts.svg import STYLE, round_ticks, spread_apart

ABOUT: dict[str, Any] = {
    "kind": {
        **{"name": "processes", "gpu": "RTX 4090 D", "model": "Qwen3-VL-4B", "emulated": True, "slowdown": 2.0},
        "about": {"speed": 0.5, "frames_together": 64},
    },
    "work": asdict(PhaseSettings()),
    "counts": [1, 2, 3],
    "repeats": 3,
    "machine": {
        **{"cpu": "a <CPU>", "cores": 2, "memory_gib": 4, "system": "s"},
        **{"commit": "c", "date": "2026-11-21", "command": "make it"},
    },
}


def one(count: int, repeat: int, phase: Phase, rps: float, p95_s: float, **more: Any) -> PhaseResult:
    engines = {f"gpu-{n}": 100 for n in range(count)}
    seen = RunFigures(
        rps=rps,
        answered=100 * count,
        total_p50_s=p95_s / 2,
        total_p95_s=p95_s,
        total_p99_s=p95_s * 1.1,
        first_p50_s=0.2,
        first_p95_s=0.4,
        token_p50_s=0.02,
        per_engine=engines,
        videos=20 if phase == "video" else 0,
        videos_answered=20 - 4 * (count == 1) if phase == "video" else 0,
    )
    return PhaseResult(ClusterVisit(count, repeat), phase, seen, seconds=30, used=dict.fromkeys(engines, 0.9), **more)


def whole() -> list[PhaseResult]:
    found = []
    for count in (1, 2, 3):
        for repeat in range(3):
            slower = 1 - 0.01 * repeat
            found.append(one(count, repeat, "full", 6.0 * count * slower * (0.99 if count > 1 else 1), 4.6))
            if count > 1:
                found.append(one(count, repeat, "same", 8.0, 4.6 / count))
            probes = [{"level": 5.0 * count, "total_p95_s": 3.0, "held": True}]
            found.append(one(count, repeat, "limit", 0, 0, limit_rps=5.0 * count, probes=probes))
            found.append(one(count, repeat, "video", 3.0, 3.0, died=1 if count == 1 else 0))
    return found


def test_repeats_are_interleaved_and_each_begins_with_another_number() -> None:
    order = [(visit.repeat, visit.count) for visit in visits((1, 2, 3), 3)]
    assert order == [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (1, 1), (2, 3), (2, 1), (2, 2)]


def test_one_engine_is_not_measured_twice_with_the_same_people() -> None:
    assert phases(1, ("full", "same", "video")) == ["full", "video"]
    assert phases(2, ("video", "full", "same")) == ["full", "same", "video"]


def test_efficiency_is_of_the_same_repeat_so_that_a_slower_machine_does_not_show() -> None:
    at = summarize(whole()).counts[3]
    assert at.figures["efficiency"].values == pytest.approx((0.99, 0.99, 0.99))
    rps = at.figures["full_rps"]
    assert rps.low < rps.median < rps.high


def test_one_engines_people_are_the_same_people() -> None:
    found = summarize(whole()).counts
    assert found[1]["same_p95_s"] == Spread((4.6, 4.6, 4.6))
    assert found[3].figures["same_p95_s"].median == pytest.approx(4.6 / 3)


def test_out_of_memory_and_videos_are_counted() -> None:
    found = summarize(whole()).counts
    assert found[1]["oom_per_hour"] == Spread((120.0, 120.0, 120.0))
    assert found[1]["video_success"] == Spread((0.8, 0.8, 0.8))
    assert found[3]["oom_per_hour"] == Spread((0.0, 0.0, 0.0))


def test_thresholds_that_are_missed_are_said_and_others_are_not() -> None:
    found = summarize(whole())
    assert missed_thresholds(found, Thresholds(min_efficiency=0.97, max_p95_s=2.0)) == []
    assert missed_thresholds(found, Thresholds(min_efficiency=0.995)) == [
        "efficiency at 2 engines is 0.990, expected at least 0.995",
        "efficiency at 3 engines is 0.990, expected at least 0.995",
    ]
    assert missed_thresholds(found, Thresholds(max_p95_s=1.0)) == ["p95 on 3 engines is 1.53 s, expected at most 1 s"]
    only_one = summarize([line for line in whole() if line.visit.count == 1])
    assert missed_thresholds(only_one, Thresholds(min_efficiency=0.9)) == [
        "efficiency was not measured, expected at least 0.9"
    ]


def test_an_objective_that_no_rate_met_is_said() -> None:
    found = summarize([replace(line, limit_rps=0.0) if line.phase == "limit" else line for line in whole()])
    assert "1 engine(s) did not meet the objective at any rate that was tried" in missed_thresholds(found, Thresholds())


def test_a_row_has_a_cell_for_each_number_of_engines_and_the_change_to_the_most() -> None:
    made = {row.label: row for row in report_rows(summarize(whole()), "x")}
    assert made["Most requests a second under the objective"].change == "3.00 ×"
    assert made["P95, seconds"].change == "−67 %"
    assert made["Videos answered, %"].cells == ("80.0", "100.0", "100.0")
    assert made["Videos answered, %"].change == "+20.0 points"
    assert made["Requests a second, all engines busy"].cells[0] == "5.94 (5.88 to 6.00)"


def test_the_page_stands_alone_and_says_emulated_on_every_chart(tmp_path: Path) -> None:
    assert report.write(tmp_path, ABOUT, whole(), "", Thresholds()) == []
    text = (tmp_path / "proof.html").read_text()
    assert "<script" not in text
    assert "src=" not in text
    assert "@import" not in text
    assert text.count("http") == text.count("http://www.0539edu.com"), "nothing but the cited source"
    assert text.count("<svg") == 4
    assert text.count(">emulated</text>") == 4
    assert "a &lt;CPU&gt;" in text
    assert "published, not measured here" in text
    assert "runs at" not in text
    assert "0.5 of the wall" in text
    markdown = (tmp_path / "proof.md").read_text()
    assert "**Emulated: no GPU took part." in markdown
    assert "| P95 of the answers | 4.8 s to 1.9 s, −60 % | 4.6 s to 1.5 s, −67 % |" in markdown


def test_real_engines_are_not_called_emulated(tmp_path: Path) -> None:
    about = ABOUT | {"kind": ABOUT["kind"] | {"emulated": False, "slowdown": 1.0, "about": {}}}
    report.write(tmp_path, about, whole(), "", Thresholds())
    assert "mulated" not in (tmp_path / "proof.html").read_text().replace(STYLE, "")
    assert "mulated" not in (tmp_path / "proof.md").read_text()


def test_a_partial_run_a_generator_at_its_limit_and_too_few_repeats_are_said_before_any_figure() -> None:
    few = [replace(line, generator_was_limit=line.phase == "full") for line in whole() if line.visit.repeat == 0]
    told = wording.warnings(ABOUT, summarize(few), "interrupted by Ctrl-C")
    assert told[0].startswith("Partial: interrupted by Ctrl-C")
    assert "The load generator was the limit in 1 engine, repeat 1, full" in told[1]
    assert told[2].startswith("Only 1 repeat:")


@pytest.mark.parametrize("chart", [report.throughput, report.latency, report.shares])
def test_charts_of_one_number_of_engines_do_not_break(chart: Any) -> None:
    chart(summarize([line for line in whole() if line.visit.count == 1]), True)
    chart(summarize([]), True)


def test_labels_are_kept_apart() -> None:
    assert spread_apart([10, 11, 40], 15) == [10, 25, 40]
    assert round_ticks(18.2) == [0, 5, 10, 15]
    assert round_ticks(0) == [0.0]


def test_lines_come_back_and_only_whole_ones_count(tmp_path: Path) -> None:
    file = tmp_path / "runs.jsonl"
    bad = one(1, 0, "full", 1.0, 9.0, trouble="cut")
    good = one(1, 0, "full", 6.0, 4.6)
    for line in (bad, good):
        append_line(file, line)
    with file.open("ab") as lines:
        lines.write(b'{"visit": {"count"')
    assert list(read_results(file)) == [bad, good]
    assert read_good_results(file) == [good]


def run_of(folder: Path, factor: float) -> Path:
    folder.mkdir()
    (folder / "about.json").write_bytes(orjson.dumps(ABOUT))
    for line in whole():
        slower = replace(line.figures, total_p95_s=line.figures.total_p95_s * factor)
        append_line(folder / "runs.jsonl", replace(line, figures=slower))
    return folder


def test_a_difference_within_the_spread_is_noise_and_one_beyond_it_is_not(tmp_path: Path) -> None:
    a, b = run_of(tmp_path / "a", 1.0), run_of(tmp_path / "b", 1.3)
    found = {
        row.figure: row for row in compare.differences(compare.read_run_folder(a)[1], compare.read_run_folder(b)[1])
    }
    assert found["3: p95, s"].verdict == "worse"
    assert found["3: p95, s"].change == pytest.approx(0.3)
    assert found["3: requests a second, all busy"].verdict == "noise"
    assert compare.main([str(a), str(b), "--fail-on-worse"]) == 1
    assert compare.main([str(a), str(a), "--fail-on-worse"]) == 0


def test_a_spread_of_nothing_is_none() -> None:
    assert spread([None, None]) is None
    assert spread([None, 2.0]) == Spread((2.0,))


def test_use_is_told_of_the_window_alone_and_not_of_an_engine_that_began_anew_in_it() -> None:
    use = GpuUseSampler(dict)
    use.seen = [(float(at), {"gpu-0": 0.5 * at, "gpu-1": 9.0 if at < 14 else 1.0}) for at in range(10, 21)]
    assert use.share(Window(12, 18)) == {"gpu-0": 0.5}
    assert use.share(Window(30, 40)) == {}
