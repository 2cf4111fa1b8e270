"""How many engines: decisions over time, without a clock."""

from datetime import UTC, datetime

import pytest

from manyeyes.config.scaling import ScaleDown, ScaleUp, Scaling, ScheduledEngines, Target
from manyeyes.controller.autoscaling import demand, policy
from manyeyes.controller.autoscaling.demand import PoolLoad
from manyeyes.controller.autoscaling.policy import (
    DecisionReason,
    PoolAutoscaler,
    ReplicaChange,
    ScalingDecision,
    reversals,
)

MONDAY = datetime(2026, 11, 23, tzinfo=UTC).timestamp()
TEN = Target(in_flight=10)


class Played:
    """A pool whose load is told every five seconds; engines come at once."""

    def __init__(self, scaling: Scaling, desired: int = 1, max_engines: int = 6) -> None:
        self.pool = PoolAutoscaler(scaling, desired)
        self.max_engines = max_engines
        self.now_s = MONDAY

    def goes_on(self, seconds: float, in_flight: float | None, **more: float | None) -> ScalingDecision:
        """With this load; the last decision."""
        until_s = self.now_s + seconds
        while self.now_s < until_s:
            self.now_s += 5
            self.pool.see(PoolLoad(self.now_s, self.pool.desired, in_flight, **more))
            last = self.pool.decide(self.max_engines, self.now_s)
        return last

    @property
    def desired(self) -> int:
        return self.pool.desired


def test_more_engines_come_when_the_load_lasts_and_a_sentence_says_why() -> None:
    played = Played(Scaling(target=TEN))
    played.goes_on(60, 8)
    assert played.desired == 1
    decision = played.goes_on(20, 25)
    assert (decision.desired, decision.reason) == (3, DecisionReason.LOAD)
    assert decision.sentence == "scales from 1 to 3 engines: 25 requests in flight, target 10 per engine"


def test_a_spike_shorter_than_the_window_starts_nothing() -> None:
    played = Played(Scaling(target=TEN, scale_up=ScaleUp(window_s=30)))
    played.goes_on(60, 5)
    assert played.goes_on(25, 50).reason is DecisionReason.WINDOW
    played.goes_on(60, 5)
    assert played.desired == 1


def test_within_the_tolerance_nothing_changes() -> None:
    played = Played(Scaling(target=TEN), desired=2)
    assert played.goes_on(2000, 21.9).desired == 2
    assert played.goes_on(2000, 9.1).desired == 2
    assert played.goes_on(2000, 8.9).desired == 1


def test_a_step_is_limited_and_the_next_one_waits() -> None:
    played = Played(Scaling(target=TEN, scale_up=ScaleUp(window_s=0, step=2, cool_down_s=60)))
    assert played.goes_on(5, 60).desired == 3
    assert played.goes_on(55, 60).reason is DecisionReason.COOL_DOWN
    assert played.goes_on(5, 60).desired == 5


def test_fewer_engines_only_after_the_whole_window_and_one_at_a_time() -> None:
    played = Played(Scaling(target=TEN, scale_down=ScaleDown(window_s=600, cool_down_s=120)), desired=4)
    assert played.goes_on(595, 5).desired == 4
    assert played.goes_on(10, 5).desired == 3
    assert played.goes_on(110, 5).reason is DecisionReason.COOL_DOWN
    assert played.goes_on(15, 5).desired == 2


def test_a_rise_within_the_window_keeps_the_engines() -> None:
    played = Played(Scaling(target=TEN), desired=3)
    played.goes_on(300, 5)
    played.goes_on(120, 28)
    assert played.goes_on(500, 5).reason is DecisionReason.WINDOW
    assert played.desired == 3


def test_what_was_added_stays_for_a_whole_window_even_if_the_load_is_gone_at_once() -> None:
    played = Played(Scaling(target=TEN, scale_up=ScaleUp(window_s=0)))
    played.goes_on(1000, 5)
    played.goes_on(5, 18)
    assert played.desired == 2
    assert played.goes_on(590, 5).desired == 2
    assert played.goes_on(20, 5).desired == 1


def test_a_load_between_two_sizes_makes_it_patient() -> None:
    """Ten minutes down, one up, again and again: each time the engine that went was needed again, so it stays for longer."""
    played = Played(Scaling(target=TEN, scale_up=ScaleUp(window_s=0)), desired=2)
    for _ in range(20):
        played.goes_on(660, 5)
        played.goes_on(60, 18)
    downs = [change for change in played.pool.changes if change.after < change.before]
    assert len(downs) <= 7, played.pool.changes  # 20 without it; as many as four hours of hourly memory allow


def test_reversals_are_counted_for_an_hour() -> None:
    changes = [
        ReplicaChange(0, 2, 1),
        ReplicaChange(100, 1, 2),
        ReplicaChange(200, 2, 1),
        ReplicaChange(300, 1, 3),
        ReplicaChange(400, 3, 4),
    ]
    assert reversals(changes, 500) == 2
    assert reversals(changes, 3750) == 1
    assert reversals(changes, 9999) == 0


def test_limits_hold_whatever_the_load() -> None:
    played = Played(Scaling(min=2, max=3, target=TEN))
    assert played.goes_on(5, 0).sentence == "scales from 1 to 2 engines: min is 2"
    assert played.goes_on(120, 90).desired == 3
    why = "90 requests in flight, target 10 per engine, but the maximum is 3"
    assert played.goes_on(5, 90).sentence == f"stays at 3: {why}"


def test_while_nothing_is_known_of_the_load_nothing_changes() -> None:
    played = Played(Scaling(target=TEN), desired=3)
    assert played.goes_on(5000, None).reason is DecisionReason.UNKNOWN
    assert played.desired == 3


def test_a_pool_of_which_nobody_serves_keeps_its_engines() -> None:
    found = demand.compute_demand(PoolLoad(0, 0, 0), TEN, 0.1)
    assert (found.min_engines, found.max_engines) == (None, None)


def test_a_missing_measure_may_add_engines_and_never_take_any() -> None:
    target = Target(in_flight=10, gpu=0.5)
    assert demand.compute_demand(PoolLoad(0, 2, 40), target, 0.1).min_engines == 4
    assert demand.compute_demand(PoolLoad(0, 2, 4), target, 0.1).max_engines is None


def test_the_measure_that_asks_for_most_wins() -> None:
    target = Target(in_flight=10, p95_s=4, gpu=0.5)
    found = demand.compute_demand(PoolLoad(0, 2, 10, None, 12, 0.6), target, 0.1)
    assert (found.min_engines, found.why) == (6, "the 95th percentile of request times is 12 s, target 4 s")
    assert demand.compute_demand(PoolLoad(0, 2, 10, None, 3, 0.9), target, 0.1).min_engines == 4


def test_times_ask_for_fewer_only_at_half_their_target_and_one_at_a_time() -> None:
    target = Target(p95_s=10)
    assert demand.compute_demand(PoolLoad(0, 4, None, None, 6), target, 0.1).max_engines == 4
    assert demand.compute_demand(PoolLoad(0, 4, None, None, 5), target, 0.1).max_engines == 3
    assert demand.compute_demand(PoolLoad(0, 4, None, None, None), target, 0.1).max_engines == 3


def test_times_of_before_a_change_do_not_count() -> None:
    target = Target(p95_s=10)
    assert demand.compute_demand(PoolLoad(0, 4, None, None, 40), target, 0.1, times_count=False).min_engines == 1


def test_beside_requests_in_flight_times_never_keep_engines() -> None:
    assert demand.compute_demand(PoolLoad(0, 4, 5, None, 9), Target(in_flight=10, p95_s=10), 0.1).max_engines == 1


def test_a_count_set_by_hand_is_in_force_until_it_is_taken_back() -> None:
    played = Played(Scaling(target=TEN))
    played.pool.fixed = 3
    assert played.goes_on(5, 0).reason is DecisionReason.BY_HAND
    assert played.goes_on(5000, 60).desired == 3
    played.pool.fixed = None
    assert played.goes_on(5, 60).desired == 5


def test_engines_that_others_started_stay_for_a_window() -> None:
    played = Played(Scaling(target=TEN), desired=1)
    played.goes_on(1000, 5)
    played.pool.adopt(3, played.now_s)
    assert played.goes_on(590, 5).desired == 3
    assert played.goes_on(20, 5).desired == 2


@pytest.mark.parametrize(
    ("day", "clock", "engines"),
    [
        ("2026-11-23", "07:58", 0),
        ("2026-11-23", "07:59", 3),  # a minute before, because a start takes one
        ("2026-11-23", "17:59", 3),
        ("2026-11-23", "18:00", 0),
        ("2026-11-28", "10:00", 0),  # Saturday
        ("2026-11-27", "23:00", 2),  # Friday night
        ("2026-11-28", "03:59", 2),
        ("2026-11-28", "04:00", 0),
    ],
)
def test_hours_ask_for_engines_in_their_time_zone(day: str, clock: str, engines: int) -> None:
    scaling = Scaling(
        schedule=(
            ScheduledEngines(engines=3, days=("mon", "tue", "wed", "thu", "fri"), begin="08:00", end="18:00"),
            ScheduledEngines(engines=2, days=("fri",), begin="22:00", end="04:00"),
        ),
        time_zone="Europe/Berlin",
    )
    assert policy.scheduled_engines(scaling, datetime.fromisoformat(f"{day}T{clock}+01:00").timestamp()) == engines


def test_a_decision_for_the_hour_says_so() -> None:
    played = Played(Scaling(target=TEN, schedule=(ScheduledEngines(engines=4),)))
    assert played.goes_on(5, 0).sentence == "scales from 1 to 4 engines: the schedule requires it"
