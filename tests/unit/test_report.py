"""The report's figures, charts and words."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from manyeyes.monitoring.prometheus_client import TimeSeries
from manyeyes.monitoring.report import figures, page
from manyeyes.monitoring.report.figures import CHARTS, AlertSpan, PoolFigures, ReportData, alert_spans
from manyeyes.monitoring.report.page import RenderedChart, render_report

START = datetime(2026, 11, 21, 12, tzinfo=UTC).timestamp()
WELL = PoolFigures(
    pool="big",
    requests=12_345,
    answered=0.9991,
    answered_promised=0.99,
    in_time=0.97,
    in_time_promised=0.95,
    objective_s=5,
    p50_s=0.8,
    p95_s=4.2,
    p99_s=6.1,
    first_token_p95_s=0.31,
    fallbacks=0,
)
LATE = replace(WELL, pool="small", in_time=0.9)
IDLE = replace(WELL, pool="idle", requests=0, answered=None, in_time=None, p50_s=None, p95_s=None, p99_s=None)


def about(
    *pools: PoolFigures, lines: dict[str, list[TimeSeries]] | None = None, **more: tuple[AlertSpan, ...]
) -> ReportData:
    drawn = {name: (lines or {}).get(name, []) for name in CHARTS}
    answers = (("big", "gpu-0", 75.0), ("big", "gpu-1", 25.0))
    return ReportData(START, START + 3600, 15, pools, answers, drawn, more.get("alerts", ()), more.get("marks", ()))


def line(*values: float, step_s: float = 15, start_s: float = START, **labels: str) -> TimeSeries:
    return TimeSeries(labels, tuple((start_s + number * step_s, value) for number, value in enumerate(values)))


def test_the_headline_says_whether_users_were_well() -> None:
    assert figures.verdict(about(WELL, IDLE)) == ("All objectives met", True)
    assert figures.verdict(about(WELL, LATE)) == ("Objective missed: small", False)
    assert figures.verdict(about(IDLE)) == ("No requests", None)
    assert figures.verdict(about())[1] is None


def test_a_share_is_never_rounded_up_to_all() -> None:
    assert [figures.format_percent(share) for share in (1, 0.99999, 0.9993, 0.987, 0, None)] == [
        "100 %", "99.99 %", "99.93 %", "98.7 %", "0.0 %", "–",
    ]  # fmt: skip


def test_the_mean_of_pools_is_weighed_by_their_requests() -> None:
    few = replace(LATE, requests=0.0001, in_time=0.0)
    shares = {what: figure for figure, what in figures.cards(about(WELL, few))}
    assert shares["of the answers within their objective"] == "97.0 %"


def test_samples_with_a_pause_between_them_are_two_spans_and_two_pieces_of_a_line() -> None:
    points = ((0.0, 1.0), (15.0, 1.0), (30.0, 1.0), (120.0, 1.0), (135.0, 2.0))
    assert alert_spans(points, 15) == [(0, 30), (120, 135)]
    assert [len(piece) for piece in page.pieces(points, 15)] == [3, 2]
    assert len(page.pieces(((0.0, 1.0),), 15)[0]) == 2, "a single sample is still seen"


@pytest.mark.parametrize(
    ("hours", "first", "last"),
    [
        (0.1, "12:00", "12:06"),
        (1, "12:00", "13:00"),
        (6, "12:00", "18:00"),
        (24, "12:00", "12:00"),
        (72, "Sat 12:00", "Tue 12:00"),
        (240, "23 Nov", "01 Dec"),
    ],
)
def test_times_under_a_chart_are_round_and_few(hours: float, first: str, last: str) -> None:
    ticks = page.clock(START, START + 3600 * hours, lambda at: datetime.fromtimestamp(at, UTC))
    assert 3 <= len(ticks) <= 7
    assert (ticks[0][1], ticks[-1][1]) == (first, last)


def test_a_chart_names_its_lines_and_leaves_out_the_idlest_of_too_many() -> None:
    lines = [
        RenderedChart(f"gpu-{number}", ((START, float(number)), (START + 15, float(number)))) for number in range(10)
    ]
    drawn = page.draw_time_chart(about(), "Requests of each engine", "/s", lines)
    assert "and 2 more" in drawn
    assert "gpu-9" in drawn
    assert "gpu-1<" not in drawn
    assert page.draw_time_chart(about(), "Nothing", "/s", []) == ""


def test_an_objective_far_above_every_line_does_not_flatten_them() -> None:
    def chart(objective: float) -> str:
        return page.draw_time_chart(
            about(), "P95", "s", [RenderedChart("big", ((START, 1.0),))], objectives=[objective]
        )

    assert "objective 2 s" in chart(2)
    assert "objective" not in chart(30)


def test_the_page_shows_what_was_missed_alerts_that_last_and_events_of_its_time_only() -> None:
    end = START + 3600
    alerts = (AlertSpan("PoolEmpty", end - 60, end, "big, page"), AlertSpan("KvFull", START, START + 600, "big, gpu-1"))
    events = [(datetime.fromtimestamp(at, UTC), text) for at, text in ((end - 5, "in <it>"), (START - 5, "before it"))]
    lines = {"requests": [line(1, 2, 3, pool="big")], "p95": [line(0.5, 0.6, pool="big")]}
    marks = (AlertSpan("a load test", START + 60, START + 120),)
    text = render_report(
        about(WELL, LATE, lines=lines, alerts=alerts, marks=marks), "cluster", events, [], "manyeyes report"
    )
    assert '<h1 class="bad">Objective missed: small</h1>' in text
    assert '<td class="bad">90.0 %' in text
    assert "PoolEmpty<small>big, page</small>" in text
    assert "<td>still</td>" in text
    assert "<td>10 min</td>" in text
    assert "in &lt;it&gt;" in text
    assert "before it" not in text
    assert "Blue spans are marks: a load test" in text
    assert text.count("<svg") == 2
    assert text.count("Nothing to draw") == 8
    assert "emulated" not in text.replace(".emulated", "")
