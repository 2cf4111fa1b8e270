import itertools
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from loadtest.__main__ import rows
from loadtest.run_spec import STAGED, LevelSearch, SearchPlan, arrivals_in, length_s, level_at, parse_duration
from loadtest.statistics import LatencyObjective, Sample, Window, figures, parse_slo, read_samples
from loadtest.users import ALL, mix
from manyeyes.config.pools import Slo as PromisedSlo

ONE = Sample("image", 1, 0, 100.0, 0.0, 0.5, 2.0, 11, 600, 300, False, 200, "", "gpu-0", "big")


def sample(began_s: float, total_s: float = 2.0, first_s: float = 0.5, **more: object) -> Sample:
    return replace(ONE, began_s=began_s, total_s=total_s, first_s=first_s, **more)  # type: ignore[arg-type]


def test_a_request_counts_for_the_part_of_its_time_that_lies_in_the_window() -> None:
    seen = figures([sample(99), sample(101), sample(109.5), sample(200)], Window(100, 110), LatencyObjective())
    assert seen.rps == pytest.approx((0.5 + 1 + 0.25) / 10)
    assert seen.answered == 2, "percentiles are of those that ended in it"


def test_a_steady_load_has_the_same_rate_wherever_the_window_begins() -> None:
    steady = [sample(0.7 * n, total_s=3.1) for n in range(100)]
    rates = {
        round(figures(steady, Window(10 + shift / 10, 40 + shift / 10), LatencyObjective()).rps, 2)
        for shift in range(10)
    }
    assert max(rates) - min(rates) < 0.02
    assert abs(max(rates) - 1 / 0.7) < 0.02


def test_slower_engines_clocks_give_the_same_figures() -> None:
    fast = figures([sample(n) for n in range(50)], Window(10, 40), LatencyObjective())
    slow = figures([sample(4.0 * n, 8.0, 2.0) for n in range(50)], Window(40, 160), LatencyObjective(), slowdown=4)
    assert slow.rps == pytest.approx(fast.rps)
    assert slow.total_p95_s == pytest.approx(fast.total_p95_s)
    assert slow.token_p50_s == pytest.approx(fast.token_p50_s)
    assert slow.goodput_rps == pytest.approx(fast.goodput_rps)


def test_goodput_leaves_out_what_was_too_late_and_failures_count_nowhere_but_as_failures() -> None:
    samples = [
        sample(1),
        sample(2, first_s=2.5, total_s=3),
        sample(3, failed="status 503"),
        sample(4, failed="status 503"),
    ]
    seen = figures(samples, Window(0, 10), LatencyObjective(first_s=2, total_s=5))
    assert seen.rps == pytest.approx(0.2)
    assert seen.goodput_rps == pytest.approx(0.1)
    assert (seen.answered, seen.failed, seen.errors) == (2, 2, {"status 503": 2})
    assert seen.kept_share == pytest.approx(0.25)


def test_videos_and_engines_are_counted() -> None:
    samples = [sample(1, video=True), sample(2, video=True, failed="status 500"), sample(3, engine="gpu-1"), sample(4)]
    seen = figures(samples, Window(0, 10), LatencyObjective())
    assert seen.video_success == 0.5
    assert seen.per_engine == {"gpu-0": 2, "gpu-1": 1}
    assert seen.balance == 2
    assert seen.cached_share == 0.5


def test_cached_tokens_that_no_engine_reports_are_not_zero() -> None:
    samples = [sample(1, cached_tokens=None), sample(2, cached_tokens=None)]
    seen = figures(samples, Window(0, 10), LatencyObjective())
    assert seen.cached_share is None
    assert dict(rows(seen))["Prompt tokens from cache"] == "not reported (gateway.report_cached_tokens)"


def test_samples_come_back_from_their_file_but_for_a_line_that_was_cut(tmp_path: Path) -> None:
    file = tmp_path / "requests.jsonl"
    file.write_bytes(ONE.line() + ONE.line()[:50])
    assert list(read_samples(file)) == [ONE]


@pytest.mark.parametrize("limit", [0.7, 4.0, 11.0, 37.0])
def test_a_search_finds_the_limit_to_its_precision(limit: float) -> None:
    search = LevelSearch(SearchPlan(start=4.0, precision=0.05, max_probes=20))
    while (here := search.level) is not None:
        search.record(here, here <= limit)
    assert limit / 1.05 <= search.highest_met <= limit


def test_a_search_ends_where_nothing_holds() -> None:
    search = LevelSearch(SearchPlan(start=4.0))
    while (here := search.level) is not None:
        search.record(here, False)
    assert search.highest_met == 0
    assert search.probes < 9


def test_a_search_makes_no_more_probes_than_it_may() -> None:
    search = LevelSearch(SearchPlan(start=1.0, max_probes=3))
    while (here := search.level) is not None:
        search.record(here, True)
    assert search.probes == 3


@pytest.mark.parametrize("name", STAGED)
def test_a_shape_takes_its_time_reaches_its_level_and_never_exceeds_it(name: str) -> None:
    stages = STAGED[name](20, 600)
    seen = [level_at(stages, at) or 0 for at in range(600)]
    assert length_s(stages) == pytest.approx(600)
    assert max(seen) == pytest.approx(20, rel=0.02)
    assert max(seen) <= 20
    assert level_at(stages, 600.1) is None


def test_arrivals_are_as_many_as_expected_bursty_and_the_same_for_the_same_seed() -> None:
    dues = arrivals_in(Random(1), 5.0, 100.0, 60.0)
    assert dues == arrivals_in(Random(1), 5.0, 100.0, 60.0)
    assert len(dues) == 300
    assert dues == sorted(dues)
    assert 100 <= dues[0] <= dues[-1] < 160
    gaps = [late - early for early, late in itertools.pairwise(dues)]
    mean = sum(gaps) / len(gaps)
    spread = (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5
    assert 0.8 < spread / mean < 1.2, "gaps of a Poisson process spread as wide as their mean"


def test_every_scenario_is_the_same_for_the_same_seed_and_another_for_another_user() -> None:
    for scenario in ALL.values():
        conversation = scenario.conversation(1, 2, 3)
        assert conversation == scenario.conversation(1, 2, 3)
        assert scenario.name in ("pages",) or conversation.turns[0].text != scenario.conversation(1, 3, 3).turns[0].text
        assert scenario.title
        assert scenario.answer_tokens > 0


def test_a_mix_gives_shares_of_any_row_of_users() -> None:
    both = mix("image:3,video:1")
    names = [both.of(user).name for user in range(5, 405)]
    assert (names.count("image"), names.count("video")) == (300, 100)


@pytest.mark.parametrize("text", ["", "film", "image:0", "image:x", "image,,video"])
def test_a_wrong_mix_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"unknown scenario|expected a whole number"):
        mix(text)


def test_an_objective_is_written_in_words() -> None:
    assert parse_slo("first=1,total=3") == LatencyObjective(first_s=1, total_s=3, share=0.95)
    for wrong in ("first", "p95=3", "share=2", "total=-1"):
        with pytest.raises(ValueError, match="SLO: expected"):
            parse_slo(wrong)


def test_durations() -> None:
    assert [parse_duration(text) for text in ("90", "90s", "10m", "1h30m")] == [90, 90, 600, 5400]
    for wrong in ("", "0s", "ten", "5x", "s"):
        with pytest.raises(ValueError, match="duration: expected"):
            parse_duration(wrong)


def test_the_load_test_and_the_alerts_go_by_the_same_objective_unless_told_otherwise() -> None:
    pool = PromisedSlo()
    assert LatencyObjective() == LatencyObjective(
        first_s=pool.ttft_s, total_s=pool.latency_s, share=pool.latency_objective
    )
