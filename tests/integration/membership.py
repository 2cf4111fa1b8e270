"""Who is in rotation, asked where nginx asks: the controller's DNS. And what the controller says of its engines."""

import collections
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import dns.exception
import dns.flags
import dns.message
import dns.query
import dns.rcode
import httpx

from manyeyes.devcluster.cluster import LocalCluster
from manyeyes.devcluster.eventually import eventually

HOLD_PROMISED_TIMES = bool(os.environ.get("MANYEYES_HOLD_PROMISED_TIMES"))
"""Set in the nightly suite, which has the machine to itself. `make test` proves that a change happens, not when."""


def asked(running: LocalCluster, pool: str = "big", tcp: bool = False, edns: bool = True) -> dns.message.Message:
    """The answer to the question that nginx asks once a second."""
    query = dns.message.make_query(f"_http._tcp.{pool}.pool.manyeyes.internal", "SRV", use_edns=edns)
    ask = dns.query.tcp if tcp else dns.query.udp
    return ask(query, "127.0.0.1", port=running.ports["dns"], timeout=5)


def rotation(running: LocalCluster, pool: str = "big") -> set[str] | None:
    """The engines that get requests; None while the controller says that it does not know, or nothing."""
    try:
        reply = asked(running, pool)
        if reply.flags & dns.flags.TC:
            reply = asked(running, pool, tcp=True)
    except (dns.exception.Timeout, OSError):
        return None
    if reply.rcode() != dns.rcode.NOERROR:
        return None
    return {record.target.labels[0].decode() for rrset in reply.answer for record in rrset}


def within(limit_s: float, since_s: float, check: Callable[[], bool], what: str) -> float:
    """Waits until `check` holds, for longer than promised; in the nightly suite the time since `since_s` must be within `limit_s`."""
    eventually(check, 4 * limit_s + 20, 0.02, what)
    took_s = time.monotonic() - since_s
    print(f"{what}: {took_s:.2f} s, promised {limit_s} s")
    assert took_s <= limit_s or not HOLD_PROMISED_TIMES, f"{what} took {took_s:.2f} s"
    return took_s


def controller(running: LocalCluster, path: str) -> httpx.Response:
    return running.client.get(f"http://127.0.0.1:{running.ports['controller']}{path}")


def engines(running: LocalCluster) -> dict[str, dict[str, Any]]:
    """What /status says of each engine."""
    pools = controller(running, "/status").json()["pools"]
    return {one["name"]: one for pool in pools for one in pool["engines"]}


def states(running: LocalCluster) -> dict[str, str]:
    return {name: one["state"] for name, one in engines(running).items()}


def sentences(running: LocalCluster) -> list[str]:
    """What happened, oldest first."""
    return [event["sentence"] for event in reversed(controller(running, "/api/events").json())]


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
