"""Waits until every engine is up, telling what each one does; fails as soon as one cannot come up any more."""

import contextlib
import threading
import time
from collections.abc import Iterator

from config.cluster import Cluster
from host import gateway
from host.command import run
from host.compose import Compose
from host.rolling import HELD, SERVING
from host.terminal import Step
from host.trouble import Trouble

IS_UP = SERVING | {HELD, "sleeping"}
"""Scaling may take out again what Compose has just started."""
POLL_S = 0.5
DOWNLOAD_POLL_S = 1.0
RESTARTS_THAT_ARE_TOO_MANY = 3


def until_up(cluster: Cluster, compose: Compose, current: Step, deadline_s: float, services: set[str]) -> None:
    """Returns when these engines are up. Raises Trouble with the log of the one that failed."""
    started = time.monotonic()
    while True:
        states = engine_states(cluster)
        ours = {name: state for name, state in states.items() if name in services}
        up = sum(state in IS_UP for state in ours.values())
        current.title = f"starting engines, {up} of {len(services)} up"
        if up == len(services):
            current.outcome = f"{up} engine{'s' if up > 1 else ''} up"
            return
        _refuse_if_failed(compose, services)
        if time.monotonic() - started > deadline_s:
            slow = sorted(name for name in services if ours.get(name) not in IS_UP)
            raise Trouble(
                f"{', '.join(slow)} did not come up within {deadline_s:.0f} s. "
                f"`docker compose logs {slow[0]}` tells what it does.",
                details=compose.logs(slow[0]),
            )
        time.sleep(POLL_S)


@contextlib.contextmanager
def downloads_told(compose: Compose, current: Step) -> Iterator[None]:
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


def engine_states(cluster: Cluster) -> dict[str, str]:
    """{engine: state} as the gateway tells it; empty while it does not answer."""
    pools = gateway.healthz(cluster).get("pools", [])
    return {engine["name"]: engine["state"] for pool in pools for engine in pool["engines"]}


def _refuse_if_failed(compose: Compose, services: set[str]) -> None:
    if service := failed(compose, services):
        raise Trouble(f"{service} ends again and again; its last lines are below.", details=compose.logs(service, 25))


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
