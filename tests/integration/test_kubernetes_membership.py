"""The gateway on the files that are rendered for Kubernetes, against DNS as CoreDNS answers about headless Services."""

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from manyeyes.devcluster.eventually import eventually
from tests.integration.fake_namespace import Namespace, namespace
from tests.integration.membership import users

FEW = ["127.0.1.1", "127.0.1.2", "127.0.1.3"]
EIGHT = [f"127.0.1.{number}" for number in range(1, 9)]


def document() -> dict[str, Any]:
    return {
        "pools": [
            {"name": "big", "model": "org/Big-VL", "flavours": ["emulated"], "fallback": "small"},
            {"name": "small", "model": "org/Small-VL", "flavours": ["emulated"]},
        ],
        "kubernetes": {"resolve_interval_s": 1, "dns_cache_s": 0},
        "controller": {"probe_interval_s": 1},
    }


def announced_s(running: Namespace) -> float:
    """How long a pod serves on after it left DNS: manyeyes/engine/pod/pre_stop.py."""
    return 0 + 1 + 3


def engines_seen(running: Namespace, requests: int = 60) -> set[str]:
    with ThreadPoolExecutor(8) as asking:
        replies = list(asking.map(lambda _: running.ask("big"), range(requests)))
    assert {reply.status_code for reply in replies} == {200}
    return {reply.headers["X-ManyEyes-Engine"] for reply in replies}


def named(addresses: list[str]) -> set[str]:
    return {address.replace(".", "-") for address in addresses}


def test_three_pods_become_eight_and_three_again_under_load_and_no_request_fails(tmp_path: Path) -> None:
    grow_and_shrink(tmp_path, EIGHT, by_srv=False)


def grow_and_shrink(folder: Path, many: list[str], by_srv: bool) -> Counter[str]:
    """Three pods, `many` pods, three pods. Returns what was asked of DNS."""
    more = many[len(FEW) :]
    with namespace(folder, document(), by_srv) as running:
        running.create(*FEW)
        running.ready("big", *FEW)
        eventually(lambda: engines_seen(running) == named(FEW), 20, 0.2, "the three answer, by their names")
        with users(running, "big", count=12) as seen:
            running.create(*more)
            running.ready("big", *many)
            eventually(lambda: len({engine for _, engine in list(seen)}) >= len(many), 60, 0.2, "all of them answer")
            running.ready("big", *FEW)
            time.sleep(announced_s(running))
            running.end(*more)
            before = sum(seen.values())
            eventually(lambda: sum(seen.values()) > before + 200, 20, 0.1, "the three carry on")
        assert {status for status, _ in seen} == {200}, seen
        assert running.cut == {}, "every request had ended before its pod did"
        assert engines_seen(running) == named(FEW)
        return running.dns.asked


def test_a_service_without_ready_pods_falls_back_and_a_pool_that_nobody_answers_for_keeps_its_members(
    tmp_path: Path,
) -> None:
    with namespace(tmp_path, document()) as running:
        running.create("127.0.2.1", "127.0.2.2")
        running.ready("big", "127.0.2.1")
        running.ready("small", "127.0.2.2")
        eventually(lambda: running.ask("big").status_code == 200, 20, 0.2, "big answers")

        running.ready("big")  # CoreDNS says NXDOMAIN
        reply = eventually(lambda: _answered_by(running, "small"), 15, 0.2, "small stands in")
        assert reply.headers["X-ManyEyes-Fallback"] == "big"

        def told() -> bool:
            pools = {pool["name"]: (pool["up"], pool["total"]) for pool in running.healthz()["pools"]}
            assert pools == {"big": (0, 2), "small": (1, 1)}, pools
            return True

        eventually(told, 15, 0.2, "/healthz tells that big has nobody")

        running.dns.silent = True
        time.sleep(5)  # longer than an answer is valid, and than nginx waits for the next one
        assert running.ask("small").status_code == 200


def _answered_by(running: Namespace, pool: str) -> Any:
    reply = running.ask("big")
    return reply if reply.status_code == 200 and reply.headers["X-ManyEyes-Pool"] == pool else None


def test_requests_in_flight_stay_counted_when_a_pod_comes_though_all_weights_change(tmp_path: Path) -> None:
    """With SRV records they would not: CoreDNS parts a weight of 100 among the pods, so an arrival changes all weights."""
    first, second, third = "127.0.3.1", "127.0.3.2", "127.0.3.3"
    with namespace(tmp_path, document()) as running, ThreadPoolExecutor(12) as asking:
        running.create(first, second, third)
        running.ready("big", first, second)
        eventually(lambda: engines_seen(running) == named([first, second]), 20, 0.2, "two answer")
        long = [asking.submit(running.ask, "big", max_tokens=7_000) for _ in range(8)]
        time.sleep(0.5)
        running.ready("big", first, second, third)
        eventually(lambda: third.replace(".", "-") in _names(running), 15, 0.2, "the third is known")
        time.sleep(2.5)  # the controller knows it; by then nginx, which asks once a second, does too
        quick = list(asking.map(lambda _: running.ask("big", max_tokens=500), range(4)))
        assert Counter(reply.headers["X-ManyEyes-Engine"] for reply in quick) == {third.replace(".", "-"): 4}
        assert {request.result().status_code for request in long} == {200}


def _names(running: Namespace) -> set[str]:
    return {engine["name"] for pool in running.healthz()["pools"] for engine in pool["engines"]}
