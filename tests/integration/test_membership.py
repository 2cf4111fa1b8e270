"""Engines come and go under load: nothing is lost, and who is in rotation follows."""

import collections
import concurrent.futures
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from manyeyes.devcluster.cluster import LocalCluster, local_cluster
from manyeyes.devcluster.eventually import eventually


def one_pool() -> dict[str, Any]:
    return {
        "pools": [{"name": "big", "model": "org/Big-VL"}],
        "engines": [{"name": "big-0", "pool": "big"}, {"name": "big-1", "pool": "big"}],
    }


@contextmanager
def users(running: LocalCluster, model: str, count: int = 8) -> Iterator[collections.Counter[Any]]:
    """`count` users ask without pause while the body runs; counts (status, engine), and errors by their text."""
    seen: collections.Counter[Any] = collections.Counter()
    stop = threading.Event()

    def user() -> None:
        with httpx.Client(timeout=30) as client:
            body = {"model": model, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4}
            while not stop.is_set():
                try:
                    reply = client.post(f"{running.url}/v1/chat/completions", json=body)
                    seen[(reply.status_code, reply.headers.get("X-ManyEyes-Engine"))] += 1
                except httpx.HTTPError as error:
                    seen[repr(error)] += 1

    threads = [threading.Thread(target=user) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def grows(seen: collections.Counter[Any], key: Any, by: int = 20, within_s: float = 30) -> None:
    before = seen[key]
    eventually(lambda: seen[key] >= before + by, within_s, 0.05, f"{by} more of {key}")


def test_an_engine_killed_under_load_costs_no_request_and_one_that_returns_is_used_again(tmp_path: Path) -> None:
    with local_cluster(tmp_path, one_pool()) as running:
        running.answers_from("big", {"big-0", "big-1"})
        with users(running, "big") as seen:
            grows(seen, (200, "big-0"))
            running.kill("big-0")
            grows(seen, (200, "big-1"), by=100)
            running.start_engine("big-0")
            grows(seen, (200, "big-0"))
        assert set(seen) == {(200, "big-0"), (200, "big-1")}, seen


def test_an_engine_that_is_told_to_stop_costs_no_request(tmp_path: Path) -> None:
    with local_cluster(tmp_path, one_pool()) as running:
        running.answers_from("big", {"big-0", "big-1"})
        with users(running, "big") as seen:
            grows(seen, (200, "big-0"))
            running.kill("big-0", signal.SIGTERM)
            grows(seen, (200, "big-1"), by=100)
        assert set(seen) == {(200, "big-0"), (200, "big-1")}, seen


def test_while_the_controller_is_dead_requests_go_on(tmp_path: Path) -> None:
    with local_cluster(tmp_path, one_pool()) as running:
        running.answers_from("big", {"big-0", "big-1"})
        running.kill("controller")
        with users(running, "big") as seen:
            # Beyond every DNS answer's time to live.
            eventually(lambda: "could not be resolved" in running.log("nginx"), 30, 0.2, "nginx has asked in vain")
            grows(seen, (200, "big-0"))
            grows(seen, (200, "big-1"))
            running.start_controller()
            eventually(lambda: running.healthz()["controller"] == "ok", 10)
            grows(seen, (200, "big-0"), by=100)
        assert set(seen) == {(200, "big-0"), (200, "big-1")}, seen


def test_an_empty_pool_falls_back_and_without_a_fallback_says_503_with_retry_after(tmp_path: Path) -> None:
    document = one_pool()
    document["pools"] = [
        {"name": "big", "model": "org/Big-VL", "fallback": "small"},
        {"name": "small", "model": "org/Small-VL"},
    ]
    document["engines"] = [{"name": "big-0", "pool": "big"}, {"name": "small-0", "pool": "small"}]
    with local_cluster(tmp_path, document) as running:
        running.answers_from("big", {"big-0"})
        running.answers_from("small", {"small-0"})
        running.kill("big-0")
        reply = running.ask("big")
        assert (reply.status_code, reply.headers["X-ManyEyes-Engine"]) == (200, "small-0")
        assert (reply.headers["X-ManyEyes-Pool"], reply.headers["X-ManyEyes-Fallback"]) == ("small", "big")
        running.kill("small-0")

        def refused() -> bool:
            reply = running.ask("big")
            assert reply.status_code == 503
            assert reply.headers["Retry-After"] == "5"
            assert reply.json()["error"]["code"] == "no_engine"
            return True

        eventually(refused, 10)
        assert eventually(lambda: running.healthz()["status"] != "ok", 10)


def test_an_engine_that_starts_late_is_warmed_up_and_then_used(tmp_path: Path) -> None:
    document = one_pool()
    document["engines"].append({"name": "late-2", "pool": "big"})
    with local_cluster(tmp_path, document) as running:
        running.answers_from("big", {"big-0", "big-1"})
        running.start_engine("late-2", "--start-seconds=1")
        running.answers_from("big", {"big-0", "big-1", "late-2"})
        sentences = [
            event["sentence"]
            for event in httpx.get(f"http://127.0.0.1:{running.ports['controller']}/api/events").json()
        ]
        assert sentences.index("late-2 is up: its warm-up picture was answered") < sentences.index(
            "late-2 answers /health and gets its warm-up picture"
        )


def test_when_every_engine_is_full_the_answer_is_429_with_retry_after_and_nothing_is_lost_below(tmp_path: Path) -> None:
    document = one_pool()
    document["engines"] = [{"name": "late-0", "pool": "big"}, {"name": "late-1", "pool": "big"}]
    with local_cluster(tmp_path, document) as running:
        for name in ("late-0", "late-1"):
            running.start_engine(name, "--max-num-seqs=1", "--max-num-queued-reqs=2", "--tpot-ms=100")
        running.answers_from("big", {"late-0", "late-1"}, within_s=30)
        with concurrent.futures.ThreadPoolExecutor(8) as users_at_once:
            replies = list(users_at_once.map(lambda _: running.ask("big", max_tokens=40, ignore_eos=True), range(8)))
        statuses = collections.Counter(reply.status_code for reply in replies)
        # Two engines with two places each; as in vLLM, requests that come at once may pass the check together.
        assert set(statuses) == {200, 429}, [reply.text for reply in replies]
        assert statuses[200] >= 4
        refused = next(reply for reply in replies if reply.status_code == 429)
        assert refused.headers["Retry-After"] == "5"
        assert refused.json()["error"]["code"] == "overloaded"
