"""Each fault of an engine with its promised time (docs/benchmarks/faults.md), with the settings that ship."""

import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from manyeyes.devcluster.cluster import LocalCluster, local_cluster
from manyeyes.devcluster.eventually import eventually
from tests.integration.documents import document
from tests.integration.membership import controller, engines, rotation, sentences, states, users, within

BOTH = {"big-0", "big-1"}
STREAMED = {"model": "big", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 9, "stream": True}


@contextmanager
def two_engines(folder: Path, *flags: str, **settings: Any) -> Iterator[LocalCluster]:
    with local_cluster(
        folder, document({"big": sorted(BOTH)}, controller=settings), engine_flags=("--faults", *flags)
    ) as running:
        eventually(lambda: rotation(running) == BOTH, 30, 0.1, "both are in rotation")
        yield running


def fault(running: LocalCluster, name: str, **values: Any) -> None:
    url = f"http://127.0.0.1:{running.ports[name]}/emulator/faults"
    reply = httpx.post(url, json=values) if values else httpx.delete(url)
    assert reply.status_code == 200, reply.text


def listens_again(running: LocalCluster, name: str) -> None:
    eventually(lambda: running.log(name).count('"event": "listening"') == 2, 30, 0.01, f"{name} listens a second time")


def send(running: LocalCluster, name: str, number: int) -> float:
    os.killpg(running.processes[name].pid, number)
    return time.monotonic()


def test_killed_it_is_out_within_2_s_and_back_within_3_s_of_its_warm_up(tmp_path: Path) -> None:
    with two_engines(tmp_path) as running:
        killed_s = time.monotonic()
        running.kill("big-0")
        within(2, killed_s, lambda: rotation(running) == {"big-1"}, "killed, out of rotation")
        running.start_engine("big-0")
        listens_again(running, "big-0")
        within(3, time.monotonic(), lambda: rotation(running) == BOTH, "listening, warmed up, in rotation")
        assert [sentence for sentence in sentences(running) if sentence.startswith("big-0")][-3:] == [
            "big-0 is down: nothing listens there",
            "big-0 answers /health and gets its warm-up request",
            "big-0 is up: its warm-up request succeeded",
        ]
        assert "big-0 is down: nothing listens there" in running.log("controller")
        assert re.search(
            r'manyeyes_engine_transitions_total\{engine="big-0",pool="big",state="down"\} 1\.0',
            controller(running, "/metrics").text,
        )


def test_stopped_in_its_tracks_it_is_out_within_10_s_and_back_when_it_goes_on(tmp_path: Path) -> None:
    with two_engines(tmp_path) as running:
        stopped_s = send(running, "big-0", signal.SIGSTOP)
        within(10, stopped_s, lambda: rotation(running) == {"big-1"}, "SIGSTOP, out of rotation")
        assert states(running)["big-0"] == "down"
        goes_on_s = send(running, "big-0", signal.SIGCONT)
        within(3, goes_on_s, lambda: rotation(running) == BOTH, "SIGCONT, in rotation")
        said = [sentence for sentence in sentences(running) if sentence.startswith("big-0 is")][-3:]
        assert said[0].startswith("big-0 is suspect: no answer to /health for")
        assert said[1].startswith("big-0 is down: no answer to /health and no progress for")
        assert said[2] == "big-0 is up: its warm-up request succeeded"


def test_all_stopped_at_once_stay_because_silence_proves_nothing_and_all_killed_are_out(tmp_path: Path) -> None:
    with two_engines(tmp_path) as running:
        for name in BOTH:
            send(running, name, signal.SIGSTOP)
        eventually(lambda: set(states(running).values()) == {"down"}, 20, 0.1)
        assert rotation(running) == BOTH
        killed_s = time.monotonic()
        for name in BOTH:
            running.kill(name)
        within(2, killed_s, lambda: rotation(running) == set(), "all killed, an empty answer")
        assert controller(running, "/status").json()["pools"][0]["up"] == 0


def test_a_slow_engine_stays(tmp_path: Path) -> None:
    with two_engines(tmp_path) as running:
        fault(running, "big-0", kind="slow", factor=100)
        with users(running, "big", 4) as seen:

            def has_answered() -> bool:
                if rotation(running) != BOTH:
                    pytest.fail("the slow engine was taken out")
                return seen[(200, "big-0")] >= 4

            eventually(has_answered, 60, 0.2, "the slow engine has answered several times")
        assert states(running) == dict.fromkeys(BOTH, "up")


def test_500s_behind_a_healthy_face_take_it_out_within_5_s_and_back_when_they_end(tmp_path: Path) -> None:
    with two_engines(tmp_path) as running, users(running, "big", 4) as seen:
        eventually(lambda: seen[(200, "big-0")] > 20, 20)
        began_s = time.monotonic()
        fault(running, "big-0", kind="errors", status=500)
        within(5, began_s, lambda: rotation(running) == {"big-1"}, "500s, out of rotation")
        assert any("a canary request failed: status 500" in one for one in sentences(running))
        assert rotation(running) == {"big-1"}
        ended_s = time.monotonic()
        fault(running, "big-0")
        within(5, ended_s, lambda: rotation(running) == BOTH, "500s ended, in rotation")


def test_500s_of_every_engine_are_not_blamed_on_the_requests_for_long(tmp_path: Path) -> None:
    with two_engines(tmp_path) as running, users(running, "big", 4) as seen:
        running.answers_from("big", BOTH)

        def refused() -> int:
            return sum(count for (status, _), count in list(seen.items()) if status == 503)

        before = refused()
        for name in BOTH:
            fault(running, name, kind="errors", status=500)
        eventually(lambda: refused() > before, 60, 0.1, "the pool has no engine")
        told = sentences(running)
        for name in BOTH:
            assert any(one.startswith(f"{name} is down: a canary request failed: status 500") for one in told), told


def test_hung_behind_a_healthy_face_it_is_asked_about_a_picture_and_out(tmp_path: Path) -> None:
    """vLLM answers /health with 200 while its GPU work stands still. Settings a tenth of what ships."""
    with two_engines(tmp_path, stalled_after_s=2, canary_timeout_s=1, load_interval_s=1) as running:
        fault(running, "big-0", kind="hung", health=True)
        began_s = time.monotonic()
        url = f"http://127.0.0.1:{running.ports['big-0']}/v1/chat/completions"
        with httpx.Client(timeout=60) as client, client.stream("POST", url, json=STREAMED):
            within(8, began_s, lambda: rotation(running) == {"big-1"}, "stalled, out of rotation")
        said = sentences(running)
        assert any(one.startswith("big-0 is suspect: it answers /health, but has made no progress") for one in said)
        assert said[-1].startswith("big-0 is down: it did not answer a canary request in time") or "warm-up" in said[-1]
        fault(running, "big-0")
        eventually(lambda: rotation(running) == BOTH, 150, 0.2)


def test_an_idle_engine_that_hangs_behind_a_healthy_face_is_found_by_its_canary(tmp_path: Path) -> None:
    with two_engines(tmp_path, canary_interval_s=1, canary_timeout_s=1) as running:
        eventually(lambda: 'result="passed"' in controller(running, "/metrics").text, 20, 0.2)
        fault(running, "big-0", kind="hung", health=True)
        eventually(lambda: rotation(running) == {"big-1"}, 30, 0.1, "the idle hung engine is out")


def test_refusing_connections_it_is_out_within_2_s_and_back_within_3_s(tmp_path: Path) -> None:
    with two_engines(tmp_path) as running:
        refused_s = time.monotonic()
        fault(running, "big-0", kind="refuse", for_s=4)
        within(2, refused_s, lambda: rotation(running) == {"big-1"}, "refused, out of rotation")
        within(4 + 3, refused_s, lambda: rotation(running) == BOTH, "4 s refused, in rotation")


def test_dead_inside_it_is_out_within_3_s(tmp_path: Path) -> None:
    with two_engines(tmp_path) as running:
        died_s = time.monotonic()
        fault(running, "big-0", kind="dead", exit_s=30)
        within(3, died_s, lambda: rotation(running) == {"big-1"}, "503 at /health, out of rotation")
        assert "it reports that it cannot serve" in engines(running)["big-0"]["reason"]


def test_starting_slowly_it_is_starting_and_in_within_3_s_of_listening(tmp_path: Path) -> None:
    with two_engines(tmp_path) as running:
        running.kill("big-0")
        running.start_engine("big-0", "--start-seconds=2")
        eventually(lambda: rotation(running) == {"big-1"}, 10)
        listens_again(running, "big-0")
        within(3, time.monotonic(), lambda: rotation(running) == BOTH, "slow start, in rotation")


def test_flapping_it_has_to_stay_good_for_longer_before_it_is_in_again(tmp_path: Path) -> None:
    with two_engines(tmp_path, flap_penalty_s=2) as running:
        for _ in range(3):
            running.kill("big-0")
            eventually(lambda: rotation(running) == {"big-1"}, 10)
            back_s = time.monotonic()
            running.start_engine("big-0")
            eventually(lambda: rotation(running) == BOTH, 30, 0.05)
        assert time.monotonic() - back_s >= 2
        assert "big-0 stays out: it went down 3 times in 10 minutes, so it must be healthy for 2 s" in sentences(
            running
        )


def test_asleep_it_gets_nothing_until_it_is_woken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_SERVER_DEV_MODE", "1")
    with two_engines(tmp_path, "--enable-sleep-mode", load_interval_s=1) as running:
        url = f"http://127.0.0.1:{running.ports['big-0']}"
        httpx.post(f"{url}/sleep?level=1", timeout=30).raise_for_status()
        eventually(lambda: rotation(running) == {"big-1"}, 10, 0.1)
        assert states(running)["big-0"] == "sleeping"
        httpx.post(f"{url}/wake_up", timeout=30).raise_for_status()
        eventually(lambda: rotation(running) == BOTH, 10, 0.1)


def test_how_much_work_an_engine_has_is_told_of_each(tmp_path: Path) -> None:
    with two_engines(tmp_path, load_interval_s=0.5) as running:
        fault(running, "big-0", kind="slow", factor=1000)
        url = f"http://127.0.0.1:{running.ports['big-0']}/v1/chat/completions"
        with httpx.Client(timeout=60) as client, client.stream("POST", url, json=STREAMED):
            eventually(lambda: engines(running)["big-0"]["in_flight"] == 1, 10)
            assert (engines(running)["big-0"]["running"], engines(running)["big-0"]["hidden_queue"]) == (1, 0)
            assert 'manyeyes_engine_in_flight{engine="big-0",pool="big"} 1.0' in controller(running, "/metrics").text
        eventually(lambda: engines(running)["big-0"]["in_flight"] == 0, 10)
