"""What requests become in Prometheus: who gets a series, and that no client can make one."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from prometheus_client import REGISTRY, Counter, Histogram, Metric

from manyeyes.config.pools import Slo
from manyeyes.controller import metrics
from manyeyes.controller.membership.fleet import Fleet
from manyeyes.controller.telemetry import request_metrics
from manyeyes.controller.telemetry.access_log_receiver import AccessLog
from tests.placed import placed
from tests.unit.test_controller_requests import NOBODY, ONE

CLUSTER = placed("""
pools: [{name: big, model: org/Big, fallback: small}, {name: small, model: org/Small}]
engines:
  - {name: big-0, pool: big, address: "10.0.0.2:8000", flavour: emulated}
  - {name: big-1, pool: big, address: "10.0.0.3:8000", flavour: emulated}
  - {name: small-0, pool: small, address: "10.0.0.9:8000", flavour: emulated}
""")
PLAIN = ONE | {"asked_pool": "big", "pool": "big", "engine": "big-0", "key": ""}
LABELLED = [
    metric
    for metric in metrics.ALL
    if isinstance(metric, Counter | Histogram) and metric not in (metrics.UNREADABLE, metrics.DROPPED)
]


@pytest.fixture
def log() -> AccessLog:
    """Over a fleet whose engines were seen at their addresses, and metrics as of a fresh start."""
    for metric in LABELLED:
        metric.clear()
    metrics.counter.cache_clear()
    metrics.histogram.cache_clear()
    fleet = Fleet(CLUSTER)
    for member in fleet.members.values():
        member.address = member.engine.host
    return AccessLog(fleet)


def take(log: AccessLog, **changed: Any) -> None:
    log.record(b"<190>Nov 21 13:00:00 myhost manyeyes: " + json.dumps(PLAIN | changed).encode())


def value(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(name, labels)


def series() -> set[tuple[str, tuple[tuple[str, str], ...]]]:
    ours: list[Metric] = [metric for metric in REGISTRY.collect() if metric.name.startswith("manyeyes_")]
    return {(sample.name, tuple(sorted(sample.labels.items()))) for metric in ours for sample in metric.samples}


def test_an_answer_is_counted_and_timed(log: AccessLog) -> None:
    take(log)
    assert value("manyeyes_requests_total", pool="big", engine="big-0", status="200", fallback="", cache="") == 1
    assert value("manyeyes_attempts_total", pool="big", engine="big-0", outcome="ok") == 1
    assert value("manyeyes_request_duration_seconds_sum", pool="big", engine="big-0") == 1.21
    assert value("manyeyes_first_byte_seconds_sum", pool="big", engine="big-0") == 0.08
    assert value("manyeyes_request_bytes_total", pool="big") == 1000
    assert value("manyeyes_response_bytes_total", pool="big") == 500
    assert value("manyeyes_retries_total", pool="big") == 0


def counted() -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    ours = [metric for metric in REGISTRY.collect() if metric.name in {one._name for one in LABELLED}]
    samples = [sample for metric in ours for sample in metric.samples if not sample.name.endswith("_created")]
    return {(sample.name, tuple(sorted(sample.labels.items()))): sample.value for sample in samples}


@pytest.mark.parametrize(
    "changed",
    [
        {}, {"key": "alice"}, {"cache": "MISS"}, {"stream": ""}, {"stream": "", "total_s": 9.0}, {"header_s": "2.5"}, {"pool": ""},
        {"pool": "nobody", "asked_pool": "x"}, {"status": 201}, {"attempts": "10.0.0.7:1"}, {"engine": "ghost"}, {"total_s": None},
        {"total_s": -1}, {"header_s": "nan"}, {"response_s": "-"}, {"bytes_in": "x"}, {"bytes_out": 10**13}, {"key": ["a"]}, {"status": True},
        {"event": "other"}, {"pool": "small", "fallback": "big"}, {"connect_s": "-"},
    ],
)  # fmt: skip
def test_what_is_counted_together_counts_as_what_is_read_by_itself(log: AccessLog, changed: dict[str, Any]) -> None:
    before = counted()
    take(log, **changed)
    together = {name: value - before.get(name, 0) for name, value in counted().items()}
    before = counted()
    take(log, **changed, traced="1")  # a traced one is read by itself
    by_itself = {name: value - before.get(name, 0) for name, value in counted().items()}
    assert by_itself
    assert together == pytest.approx(by_itself)


def test_what_was_gathered_is_told_when_it_is_settled(log: AccessLog) -> None:
    line = json.dumps(PLAIN).encode()
    for _ in range(3):
        log.gather(line)
    log.flush()
    log.flush()
    assert value("manyeyes_requests_total", pool="big", engine="big-0", status="200", fallback="", cache="") == 3
    assert value("manyeyes_request_duration_seconds_count", pool="big", engine="big-0") == 3
    assert value("manyeyes_request_bytes_total", pool="big") == 3000
    assert "big-0" in log.last_success


def test_a_success_before_a_failure_does_not_excuse_it(log: AccessLog) -> None:
    failed = PLAIN | {"status": 502, "attempt_status": "502", "header_s": "-"}
    log.gather(json.dumps(failed).encode())
    log.gather(json.dumps(PLAIN).encode())
    log.gather(json.dumps(failed).encode())
    log.flush()
    assert log.fleet.members["big-0"].failures == 1


def test_a_refusal_counts_for_the_pool_that_was_asked_for(log: AccessLog) -> None:
    take(log, status=429, pool="", **NOBODY)
    assert value("manyeyes_requests_refused_total", status="429") == 1
    assert value("manyeyes_requests_total", pool="big", engine="", status="429", fallback="", cache="") == 1
    assert value("manyeyes_request_duration_seconds_count", pool="big", engine="") is None


def test_an_engines_own_error_is_no_refusal_and_not_timed(log: AccessLog) -> None:
    before = {sample for sample in series() if sample[0].startswith("manyeyes_refused")}
    take(log, status=400, attempt_status="400")
    assert all(value(name, **dict(labels)) == 0 for name, labels in before)
    assert value("manyeyes_request_duration_seconds_count", pool="big", engine="big-0") == 0
    assert "big-0" not in log.last_success


def test_a_client_that_left_before_an_engine_was_asked_was_not_refused(log: AccessLog) -> None:
    take(log, status=499, pool="", **NOBODY)
    assert value("manyeyes_requests_refused_total", status="499") is None


def test_the_cache_is_timed_apart_and_says_nothing_of_the_engines(log: AccessLog) -> None:
    for _ in range(30):
        take(log, cache="HIT", total_s=0.002, **NOBODY)
    assert value("manyeyes_requests_total", pool="big", engine="", status="200", fallback="", cache="HIT") == 30
    assert value("manyeyes_first_byte_seconds_count", pool="big", engine="") == 30
    assert log.p95_ms("big") is None


def test_a_stream_that_was_given_up_is_no_sign_of_life_at_its_end(log: AccessLog) -> None:
    before = datetime.now(UTC)
    take(log, header_s="0.100", response_s="60.100")
    assert abs(before - timedelta(seconds=60) - log.last_success["big-0"]) < timedelta(seconds=5)
    take(log, header_s="0.100", response_s="0.200")
    newest = log.last_success["big-0"]
    assert newest > before - timedelta(seconds=5)
    take(log, header_s="0.100", response_s="60.100")
    assert abs(log.last_success["big-0"] - newest) < timedelta(seconds=1)
    take(log, header_s="0", response_s="9999999")


def test_an_engine_is_found_by_its_address_before_its_name_is_known_to_the_gateway(log: AccessLog) -> None:
    take(log, engine="10.0.0.3:8000", attempts="10.0.0.3:8000")
    assert value("manyeyes_request_duration_seconds_count", pool="big", engine="big-1") == 1


def test_names_that_nobody_configured_are_other(log: AccessLog) -> None:
    for number in range(50):
        take(
            log, asked_pool=f"a{number}", pool=f"p{number}", engine=f"e{number}", fallback=f"f{number}",
            attempts=f"10.9.9.{number}:1 : x:{number}", cache=f"c{number}", status=600 + number, model=f"m{number}",
            client=f"10.1.1.{number}", path=f"/{number}",
        )  # fmt: skip
    labels = {"pool": "other", "engine": "other", "status": "other", "fallback": "1", "cache": "other"}
    assert value("manyeyes_requests_total", **labels) == 50
    take(log)
    before = series()
    for number in range(50, 100):
        take(log, pool=f"p{number}", fallback=f"f{number}", attempts=f"10.9.9.{number}:1 : x:{number}", status=999)
    grown = series() - before
    assert all(str(number) not in text for number in range(50, 100) for _, pairs in grown for _, text in pairs)


def test_keys_are_counted_by_name_and_their_number_is_bounded(log: AccessLog) -> None:
    take(log, key="alice")
    take(log, key="alice", status=429, pool="", **NOBODY)
    assert value("manyeyes_key_requests_total", key="alice", status_class="2xx") == 1
    assert value("manyeyes_key_requests_total", key="alice", status_class="4xx") == 1
    take(log, key="\ud800\n")
    for number in range(2 * request_metrics.MAX_KEYS):
        take(log, key=f"k{number}")
    keys = {dict(pairs)["key"] for name, pairs in series() if name == "manyeyes_key_requests_total"}
    assert {"alice", "other"} <= keys
    assert len(keys) <= request_metrics.MAX_KEYS + 1
    take(log, key="alice")
    assert value("manyeyes_key_requests_total", key="alice", status_class="2xx") == 2


def test_configured_pools_and_engines_start_at_zero(log: AccessLog) -> None:
    for engine, pool in (("big-0", "big"), ("big-1", "big"), ("small-0", "small")):
        assert value("manyeyes_requests_total", pool=pool, engine=engine, status="200", fallback="", cache="") == 0
        assert value("manyeyes_request_duration_seconds_count", pool=pool, engine=engine) == 0
        assert value("manyeyes_attempts_total", pool=pool, engine=engine, outcome="lost") == 0
        assert value("manyeyes_requests_total", pool=pool, engine=engine, status="500", fallback="", cache="") == 0
    assert value("manyeyes_requests_total", pool="big", engine="", status="503", fallback="", cache="") == 0
    assert value("manyeyes_fallbacks_total", pool="big", to="small") == 0
    assert value("manyeyes_requests_refused_total", status="429") == 0


def test_an_engine_that_fails_requests_is_looked_at_and_one_that_answers_is_forgiven(log: AccessLog) -> None:
    member, other = log.fleet.members["big-0"], log.fleet.members["big-1"]
    lost = {"attempts": "10.0.0.2:8000, 10.0.0.3:8000", "connect_s": "-, 0.001", "header_s": "-, 0.080"}
    take(log, engine="big-1", attempt_status="502, 200", response_s="0.000, 0.090", **lost)
    assert (member.failures, other.failures) == (1, 0)
    assert other.succeeded_at_s is not None
    take(log, status=500, attempt_status="500")
    assert member.failures == 2
    take(log, status=503, attempt_status="503")  # full, which is no failure
    take(log, status=499, attempt_status="-", header_s="-")
    assert (member.failures, member.succeeded_at_s) == (2, None)
    take(log)
    assert member.failures == 0
    assert member.succeeded_at_s is not None


AT_FAULT = {
    "status": 422,
    "code": "engine_cannot_process",
    "attempts": "10.0.0.2:8000, 10.0.0.3:8000",
    "attempt_status": "500, 500",
    "connect_s": "0.000, 0.000",
    "header_s": "0.010, 0.010",
    "response_s": "0.010, 0.010",
}


def test_a_request_at_fault_is_counted_and_the_engines_are_verified_instead_of_failed(log: AccessLog) -> None:
    assert value("manyeyes_requests_at_fault_total", pool="big", code="engine_cannot_process") == 0
    take(log, **AT_FAULT)
    assert value("manyeyes_requests_at_fault_total", pool="big", code="engine_cannot_process") == 1
    assert value("manyeyes_attempts_total", pool="big", engine="big-0", outcome="unprocessable") == 1
    assert value("manyeyes_attempts_total", pool="big", engine="big-0", outcome="error") == 0
    members = [log.fleet.members[name] for name in ("big-0", "big-1", "small-0")]
    assert [(member.failures, member.unverified) for member in members] == [(0, True), (0, True), (0, False)]


def test_a_request_that_ended_engines_is_counted_as_refused(log: AccessLog) -> None:
    take(log, **NOBODY, status=422, code="request_ended_engines", pool="big")
    assert value("manyeyes_requests_at_fault_total", pool="big", code="request_ended_engines") == 1
    assert value("manyeyes_requests_refused_total", status="422") == 1


def within(log: AccessLog, **changed: Any) -> float | None:
    take(log, **changed)
    return value("manyeyes_requests_within_slo_total", pool="big", engine="big-0")


def test_an_answer_keeps_the_pools_objective_or_does_not(log: AccessLog) -> None:
    assert within(log) == 1
    assert within(log, total_s=5.01) == 1  # too long as a whole
    assert within(log, header_s="2.01") == 1  # its first byte came late
    assert within(log, header_s="2.01", stream="") == 2  # not streamed: only the whole answer counts
    assert within(log, status=502, attempt_status="502") == 2  # failed


def test_another_objective_counts_from_then_on(log: AccessLog) -> None:
    longer = CLUSTER.pools[0].model_copy(update={"slo": Slo(latency_s=60)})
    log.apply(CLUSTER.model_copy(update={"pools": (longer, *CLUSTER.pools[1:])}))
    assert value("manyeyes_slo_latency_seconds", pool="big") == 60
    assert value("manyeyes_slo_latency_seconds", pool="small") == 5
    assert within(log, total_s=30) == 1
