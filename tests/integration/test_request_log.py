"""The controller takes the gateway's request log by UDP, whatever comes, and tells what it says."""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from manyeyes.devcluster.cluster import LocalCluster, local_cluster
from manyeyes.devcluster.eventually import eventually
from tests.integration.documents import document
from tests.integration.membership import controller as get
from tests.unit.test_controller_requests import NOBODY, ONE

POOLS = document({"big": ["big-0", "late-1"], "small": ["small-0"]}, {"big": {"fallback": "small"}})


@contextmanager
def controller(folder: Path) -> Iterator[LocalCluster]:
    """Once it has seen both engines, so that it knows them by their addresses."""
    with local_cluster(folder, POOLS) as running:
        eventually(lambda: running.healthz()["controller"] == "ok", 30)
        eventually(lambda: get(running, "/ready").status_code == 200, 30)
        yield running


def send(running: LocalCluster, *datagrams: bytes) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for datagram in datagrams:
            sender.sendto(datagram, ("127.0.0.1", running.ports["syslog"]))


def line(running: LocalCluster, name: str, **changed: Any) -> bytes:
    pool = name.split("-")[0]
    said = {"asked_pool": pool, "pool": pool, "engine": name, "attempts": f"127.0.0.1:{running.ports[name]}"}
    return b"<190>Nov 21 13:00:00 myhost manyeyes: " + json.dumps(ONE | said | changed).encode()


def metrics(running: LocalCluster) -> dict[str, float]:
    """Every series of ours, as Prometheus would read it."""
    lines = (text.rsplit(" ", 1) for text in get(running, "/metrics").text.splitlines() if text[0] != "#")
    return {series: float(value) for series, value in lines if series.startswith("manyeyes_")}


def test_requests_show_in_metrics_and_status(tmp_path: Path) -> None:
    with controller(tmp_path) as running:
        asked = metrics(running)
        big = 'manyeyes_requests_total{cache="",engine="big-0",fallback="",pool="big",status="200"}'
        assert asked[big] == 0
        send(running, *(line(running, "big-0", total_s=number / 10) for number in range(1, 41)))
        fallen_back = line(
            running, "small-0", asked_pool="big", fallback="big", header_s="-, - : 0.300",
            attempts=", ".join(f"127.0.0.1:{running.ports[name]}" for name in ("big-0", "late-1"))
            + f" : 127.0.0.1:{running.ports['small-0']}",
            attempt_status="502, 502 : 200", connect_s="0.000, - : 0.000", response_s="0.200, 0.000 : 1.000",
        )  # fmt: skip
        send(running, fallen_back, line(running, "big-0", status=429, pool="", **NOBODY))
        eventually(lambda: metrics(running)['manyeyes_requests_refused_total{status="429"}'] == 1, 10)
        told = metrics(running)
        assert told[big] == 40
        assert told['manyeyes_attempts_total{engine="big-0",outcome="lost",pool="big"}'] == 1
        assert told['manyeyes_attempts_total{engine="late-1",outcome="refused",pool="big"}'] == 1
        assert told['manyeyes_retries_total{pool="big"}'] == 1
        assert told['manyeyes_fallbacks_total{pool="big",to="small"}'] == 1
        assert told['manyeyes_first_byte_seconds_bucket{engine="small-0",le="0.4",pool="small"}'] == 0
        assert told['manyeyes_first_byte_seconds_bucket{engine="small-0",le="0.6",pool="small"}'] == 1
        assert told['manyeyes_key_requests_total{key="alice",status_class="2xx"}'] == 41
        assert not any(series.split("{")[0].endswith("_created") for series in told)
        big_pool, small_pool = get(running, "/status").json()["pools"]
        assert (big_pool["p95_ms"], big_pool["first_byte_p95_ms"]) == (3800, 80)
        assert (small_pool["p95_ms"], small_pool["first_byte_p95_ms"]) == (None, None)  # one request says nothing
        succeeded = {engine["name"]: engine["last_success"] for engine in big_pool["engines"]}
        assert succeeded["late-1"] is None
        assert datetime.fromisoformat(succeeded["big-0"]).tzinfo


def test_whatever_comes_it_counts_and_goes_on(tmp_path: Path) -> None:
    with controller(tmp_path) as running:
        good = line(running, "big-0")
        junk = [
            b"", b"\0", os.urandom(2000), good[:150], b"{" * 9_000, b'{"a":' + b"[" * 9_000, b"\xff" * 9_000,
            line(running, "big-0", path="/" + "x" * 70_000)[:65_507],
        ]  # fmt: skip
        send(running, *junk, line(running, "big-0", pool="\ud800", key="\ud800", cache=7), good)
        answered = 'manyeyes_requests_total{cache="",engine="big-0",fallback="",pool="big",status="200"}'
        eventually(lambda: metrics(running)[answered] == 1, 10)
        told = metrics(running)
        assert told["manyeyes_request_log_unreadable_total"] == len(junk)
        assert told["manyeyes_request_log_dropped_total"] == 0
        assert get(running, "/live").status_code == 200
        assert "Traceback" not in running.log("controller")


def test_lines_that_a_neighbour_of_the_gateway_invents_count_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MANYEYES_LOG_SENDERS", "127.0.0.1")
    with controller(tmp_path) as running:
        before = metrics(running)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as engine:
            engine.bind(("127.0.0.2", 0))
            for _ in range(200):
                lost = line(running, "big-0", status=502, attempt_status="502", header_s="-", connect_s="0.000")
                engine.sendto(lost, ("127.0.0.1", running.ports["syslog"]))
        unreadable = "manyeyes_request_log_unreadable_total"
        eventually(lambda: metrics(running)[unreadable] - before[unreadable] == 200, 30)
        send(running, line(running, "big-0"))
        served = 'manyeyes_requests_total{cache="",engine="big-0",fallback="",pool="big",status="200"}'
        eventually(lambda: metrics(running)[served] > before[served], 30)
        after = metrics(running)
        assert not [series for series in after if "502" in series and after[series] > before.get(series, 0)]
