"""The gateway's request log: what nginx 1.30.6 wrote for each thing that an engine can do, and what no nginx ever wrote."""

import json
from typing import Any

import pytest

from manyeyes.controller.health.states import AttemptOutcome
from manyeyes.controller.telemetry.access_log_parser import MAX_ATTEMPTS, LoggedRequest, parse_datagram

ONE: dict[str, Any] = {
    "at": "2026-11-21T13:00:00.120Z", "level": "info", "part": "gateway", "event": "request", "request": "4f1c", "client": "10.0.0.1", "key": "alice",
    "method": "POST", "path": "/v1/chat/completions", "status": 200, "model": "qwen3-vl-8b",
    "asked_pool": "qwen3-vl-8b", "pool": "qwen3-vl-8b", "route": "", "fallback": "", "engine": "gpu-0",
    "attempts": "10.0.0.2:8000", "attempt_status": "200", "connect_s": "0.000", "header_s": "0.080", "response_s": "1.200",
    "total_s": 1.21, "bytes_in": 1000, "bytes_out": 500, "cache": "", "stream": "1",
}  # fmt: skip


def datagram(**changed: Any) -> bytes:
    return b"<190>Nov 21 13:00:00 myhost manyeyes: " + json.dumps(ONE | changed).encode()


def told(**changed: Any) -> LoggedRequest:
    request = parse_datagram(datagram(**changed))
    assert request is not None
    return request


def outcomes(request: LoggedRequest) -> list[str]:
    return [f"{one.address} {one.outcome.value}{', handed on' * one.redirected}" for one in request.attempts]


def test_an_ordinary_answer() -> None:
    request = told()
    assert (request.status, request.ok, request.cached) == (200, True, False)
    assert (request.asked_pool, request.pool, request.fallback, request.engine) == (
        "qwen3-vl-8b", "qwen3-vl-8b", "", "gpu-0",
    )  # fmt: skip
    assert (request.key, request.bytes_in, request.bytes_out) == ("alice", 1000, 500)
    assert outcomes(request) == ["10.0.0.2:8000 ok"]
    assert request.total_s == 1.21
    assert request.first_byte_s == 0.08


@pytest.mark.parametrize(
    ("status", "connect_s", "header_s", "response_s", "outcome"),
    [
        ("502", "-", "-", "0.000", AttemptOutcome.REFUSED),
        ("504", "-", "-", "1.001", AttemptOutcome.REFUSED),  # a host that does not even refuse
        ("502", "0.000", "-", "0.201", AttemptOutcome.LOST),
        ("504", "0.000", "-", "1.002", AttemptOutcome.TIMEOUT),
        ("503", "0.000", "0.001", "0.001", AttemptOutcome.BUSY),
        ("429", "0.000", "0.001", "0.001", AttemptOutcome.BUSY),
        ("500", "0.000", "0.001", "0.001", AttemptOutcome.ERROR),
        ("502", "0.000", "0.001", "0.001", AttemptOutcome.ERROR),
        ("504", "0.000", "0.001", "0.001", AttemptOutcome.ERROR),
        ("400", "0.000", "0.001", "0.001", AttemptOutcome.OK),
        ("-", "0.000", "-", "0.501", AttemptOutcome.LEFT),
    ],
)
def test_what_came_of_asking_an_engine(
    status: str, connect_s: str, header_s: str, response_s: str, outcome: AttemptOutcome
) -> None:
    (attempt,) = told(
        attempt_status=status, connect_s=connect_s, header_s=header_s, response_s=response_s
    ).attempts  # fmt: skip
    assert attempt.outcome is outcome


@pytest.mark.parametrize(
    ("code", "statuses", "results"),
    [
        ("engine_cannot_process", "500, 500", ["unprocessable", "unprocessable"]),
        ("engine_cannot_process", "502, 501", ["lost", "unprocessable"]),
        ("engine_lost", "500, 500", ["error", "error"]),
        ("", "500, 500", ["error", "error"]),
    ],
)
def test_an_engine_that_answers_500_to_a_request_at_fault_does_not_fail(
    code: str, statuses: str, results: list[str]
) -> None:
    request = told(
        status=422,
        code=code,
        attempts="10.0.0.2:8000, 10.0.0.3:8000",
        attempt_status=statuses,
        connect_s="0.000, 0.000",
        header_s="-, 0.010" if "502" in statuses else "0.010, 0.010",
        response_s="0.010, 0.010",
    )
    assert request.code == code
    assert [attempt.outcome.value for attempt in request.attempts] == results


PASSES: dict[str, tuple[dict[str, Any], list[str], float | None]] = {
    "a retry on another engine is part of the wait for the first byte": (
        {"attempts": "10.0.0.2:8000, 10.0.0.3:8000", "attempt_status": "502, 200", "connect_s": "0.000, 0.000",
         "header_s": "-, 0.080", "response_s": "0.201, 1.200"},
        ["10.0.0.2:8000 lost", "10.0.0.3:8000 ok"], 0.281,
    ),
    "a fallback after a retry": (
        {"attempts": "10.0.0.2:8000, 10.0.0.3:8000 : 10.0.0.9:8000", "attempt_status": "502, 503 : 200", "fallback": "qwen3-vl-8b",
         "connect_s": "-, 0.000 : 0.001", "header_s": "-, 0.010 : 0.080", "response_s": "0.100, 0.010 : 1.200"},
        ["10.0.0.2:8000 refused, handed on", "10.0.0.3:8000 busy, handed on", "10.0.0.9:8000 ok"], 0.19,
    ),
    "a pool without engines is no attempt: nginx writes the upstream's name for an address": (
        {"attempts": "qwen3-vl-8b : 10.0.0.9:8000", "attempt_status": "502 : 200", "connect_s": "- : 0.000",
         "header_s": "- : 0.080", "response_s": "0.002 : 1.200"},
        ["10.0.0.9:8000 ok"], 0.082,
    ),
    "a client that left first": (
        {"status": 499, "attempt_status": "-", "header_s": "-", "response_s": "0.501"}, ["10.0.0.2:8000 left"], None,
    ),
    "a handing on that never asked anyone: the next pool ended before an engine was chosen": (
        {"status": 503, "attempts": "10.0.0.2:8000 : ", "attempt_status": "502 : ", "connect_s": "- : ", "header_s": "- : ",
         "response_s": "0.000 : "},
        ["10.0.0.2:8000 refused, handed on"], None,
    ),
    "lists of unequal length are filled up with nothing": (
        {"attempts": "a:1, b:2 : c:3", "attempt_status": "502", "header_s": "", "response_s": "x, 0.5 : 1, 2, 3"},
        ["a:1 lost, handed on", "b:2 left, handed on", "c:3 left"], None,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", PASSES)
def test_the_engines_that_were_asked_and_the_wait_for_the_first_byte(case: str) -> None:
    changed, attempts, first_byte_s = PASSES[case]
    request = told(**changed)
    assert outcomes(request) == attempts
    assert request.first_byte_s == (None if first_byte_s is None else pytest.approx(first_byte_s))


NOBODY = {"attempts": "", "attempt_status": "", "connect_s": "", "header_s": "", "response_s": "", "engine": ""}


def test_what_the_gateway_refuses_itself_has_no_attempt() -> None:
    full = {
        "attempts": "qwen3-vl-8b",
        "attempt_status": "502",
        "connect_s": "-",
        "header_s": "-",
        "response_s": "0.000",
    }
    for request in (told(status=404, pool="", **NOBODY), told(status=429, pool="", engine="", **full)):
        assert request.attempts == ()
        assert request.first_byte_s is None
        assert not request.ok
        assert not request.cached


def test_an_answer_from_the_cache_has_its_first_byte_at_its_end() -> None:
    request = told(cache="HIT", total_s=0.003, **NOBODY)
    assert request.cached
    assert request.first_byte_s == 0.003
    assert not told(cache="MISS").cached
    assert not told(cache="REVALIDATED").cached  # an engine was asked


def test_a_status_that_nginx_does_not_have_is_000() -> None:
    request = parse_datagram(datagram().replace(b'"status": 200', b'"status":000'))
    assert request is not None
    assert request.status == 0


def test_without_a_host_name_in_front() -> None:
    assert parse_datagram(b"<190>Nov 21 13:00:00 manyeyes: " + json.dumps(ONE).encode()) is not None
    assert parse_datagram(json.dumps(ONE).encode()) is not None


@pytest.mark.parametrize("field", sorted(set(ONE) - {"status"}))
def test_any_field_may_be_missing(field: str) -> None:
    assert (
        parse_datagram(json.dumps({name: value for name, value in ONE.items() if name != field}).encode()) is not None
    )


@pytest.mark.parametrize(
    "wrong",
    [
        b"",
        b"\0\xff\xfe",
        b"<190>Nov 21 13:00:00 myhost manyeyes: ",
        b"{",
        b"{}",
        b"[1]",
        b'{"status":"200"}',
        b'{"status":true}',
        b'{"status":-1}',
        b'{"status":NaN}',
        b'{"status":1e400}',
        b'{"status":' + b"9" * 5000 + b"}",
        b'{"status":' + b"0" * 60_000,
        b'{"status":200,"event":"started"}',
        b'{"status":200,"event":["request"]}',
        b'{"a":' * 10_000,
        b'{"a":' + b"[" * 60_000,
        datagram()[:200],
        datagram(path="/" + "x" * 100_000)[:65_507],
    ],
)
def test_what_tells_of_no_request_is_none(wrong: bytes) -> None:
    assert parse_datagram(wrong) is None


@pytest.mark.parametrize("value", [None, True, -1, "1.5", [], {}, float("nan"), float("inf"), 10**400, 1e300])
def test_a_number_that_is_none_counts_as_missing(value: Any) -> None:
    request = told(total_s=value, bytes_in=value, bytes_out=value)
    assert (request.total_s, request.bytes_in, request.bytes_out) == (None, 0, 0)


def test_a_text_that_is_none_counts_as_missing() -> None:
    values: tuple[Any, ...] = (None, 1, [], {}, True)
    for value in values:
        request = told(pool=value, engine=value, key=value, attempts=value, cache=value, header_s=value)
        assert (request.pool, request.engine, request.key, request.attempts, request.cache) == ("", "", "", (), "")


def test_times_that_are_none_count_as_missing() -> None:
    for text in ("nan", "inf", "-1", "1e999", "", "\u0663x"):
        assert told(header_s=text).first_byte_s is None


def test_bytes_that_are_no_text_do_not_hide_the_rest() -> None:
    request = parse_datagram(datagram(path="/v1/?").replace(b"/v1/?", b"/v1/\xff\xc3"))
    assert request is not None
    assert request.pool == "qwen3-vl-8b"


def test_an_endless_list_of_attempts_is_cut() -> None:
    assert len(told(attempts=", ".join(["a:1"] * 5000)).attempts) == MAX_ATTEMPTS
