"""Waits until every engine is up, telling what each one does; fails as soon as one cannot come up any more."""

import contextlib
import threading
import time
from collections.abc import Iterator

from manyeyes.cli import gateway_client, start_failure
from manyeyes.cli.compose import Compose
from manyeyes.cli.process import run
from manyeyes.cli.rolling.state_machine import DRAINING, SERVING
from manyeyes.cli.terminal import Step, print_warning
from manyeyes.config.placement import PlacedCluster

IS_UP = SERVING | {DRAINING, "sleeping"}
"""Scaling may take out again what Compose has just started."""
POLL_S = 0.5
DOWNLOAD_POLL_S = 1.0
RESTARTS_THAT_ARE_TOO_MANY = 3


def wait_until_up(
    cluster: PlacedCluster, compose: Compose, current: Step, deadline_s: float, services: set[str]
) -> None:
    """Returns when these engines are up. One that fails is told and left behind while its pool has another one.

    Raises Trouble with the cause of the failed one where its pool has none.
    """
    started, left = time.monotonic(), set(services)
    while True:
        states = engine_states(cluster)
        up = {name for name in left if states.get(name) in IS_UP}
        current.title = f"starting engines, {len(up)} of {len(services)} up"
        if up == left:
            current.outcome = f"{len(up)} engine{'s' if len(up) > 1 else ''} up"
            if left != services:
                current.outcome += f", not up: {', '.join(sorted(services - left))}"
            return
        if service := failed(compose, left):
            left -= _left_behind(cluster, compose, {service}, left | up, f"{service} ends again and again")
        elif time.monotonic() - started > deadline_s:
            slow = left - up
            what = f"{', '.join(sorted(slow))} did not come up within {deadline_s:.0f} s"
            left -= _left_behind(cluster, compose, slow, up, what)
        else:
            time.sleep(POLL_S)


def _left_behind(cluster: PlacedCluster, compose: Compose, gone: set[str], others: set[str], what: str) -> set[str]:
    """`gone`, told with its cause. Raises Trouble where one of its pools has nothing among `others`."""
    trouble = start_failure.explained(compose, min(gone), what)
    pool_of = {one.name: one.pool for one in cluster.started_engines}
    if {pool_of.get(name) for name in gone} - {pool_of.get(name) for name in others - gone}:
        raise trouble
    print_warning(trouble.problems[0])
    return gone


@contextlib.contextmanager
def show_downloads(compose: Compose, current: Step) -> Iterator[None]:
    """While Compose waits for the downloader, what that says is the step's note."""
    done = threading.Event()

    def tell() -> None:
        while not done.wait(DOWNLOAD_POLL_S):
            if any(row["Service"] == "models" and row["State"] == "running" for row in compose.containers()):
                current.note = compose.logs("models", 1).strip()
            else:
                current.note = ""

    teller = threading.Thread(target=tell, daemon=True)
    teller.start()
    try:
        yield
    finally:
        done.set()
        teller.join()


def engine_states(cluster: PlacedCluster) -> dict[str, str]:
    """{engine: state} as the gateway tells it; empty while it does not answer."""
    pools = gateway_client.healthz(cluster).get("pools", [])
    return {engine["name"]: engine["state"] for pool in pools for engine in pool["engines"]}


def failed(compose: Compose, services: set[str]) -> str:
    """The first of `services` whose container cannot come up any more; empty while there is none."""
    for row in compose.containers():
        service, state = row["Service"], row["State"]
        if (
            service in services
            and state in ("restarting", "dead")
            and _restarts(row["Names"]) >= RESTARTS_THAT_ARE_TOO_MANY
        ):
            return str(service)
    return ""


def _restarts(container: str) -> int:
    return int(run(["docker", "inspect", "--format", "{{.RestartCount}}", container], timeout_s=20).strip() or 0)
