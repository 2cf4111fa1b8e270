"""Waits until every engine is up, telling what each one does; fails as soon as one cannot come up any more. Then the first request,
and how to send the next."""

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from manyeyes.cli import gateway_client, secrets, start_failure
from manyeyes.cli.compose import Compose
from manyeyes.cli.engine_restart import DRAINING, SERVING
from manyeyes.cli.invocation import next_command
from manyeyes.cli.terminal import CliError, Step, print_line, print_warning
from manyeyes.config.checkout import from_checkout
from manyeyes.config.credentials import ApiKeys
from manyeyes.config.placement import PlacedCluster
from manyeyes.config.pools import Pool

IS_UP = SERVING | {DRAINING, "sleeping"}
"""Scaling may take out again what Compose has just started."""
POLL_S = 0.5
DOWNLOAD_POLL_S = 1.0
RESTARTS_THAT_ARE_TOO_MANY = 3


def wait_until_up(
    cluster: PlacedCluster, compose: Compose, current: Step, deadline_s: float, services: set[str]
) -> None:
    """Returns when these engines are up. One that fails is told and left behind while its pool has another one.

    Raises CliError with the cause of the failed one where its pool has none.
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
    """`gone`, told with its cause. Raises CliError where one of its pools has nothing among `others`."""
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
            and any(one["RestartCount"] >= RESTARTS_THAT_ARE_TOO_MANY for one in compose.inspect(service))
        ):
            return str(service)
    return ""


PICTURE = "iVBORw0KGgoAAAANSUhEUgAAACAAAAAgCAAAAABWESUoAAAAFklEQVR42mNoIAAYRhWMKhhVMFIVAABCAAAfN5c2AAAAAABJRU5ErkJggg=="
"""A grey PNG of 32 x 32 pixels."""
ATTEMPTS_S = 10.0
KEYS_SHOWN = 5


def first_answer(cluster: PlacedCluster, compose: Compose) -> tuple[str, float]:
    """(engine that answered, seconds) for one picture through the gateway. Raises CliError."""
    pool = _first_pool(cluster)
    content: list[dict[str, Any]] = [{"type": "text", "text": "What is in this picture?"}]
    if pool.media.images_per_prompt:
        content.insert(0, {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PICTURE}"}})
    body = json.dumps({"model": pool.name, "max_tokens": 8, "messages": [{"role": "user", "content": content}]})
    deadline = time.monotonic() + ATTEMPTS_S
    while True:
        status, engine, seconds, said = gateway_client.send_chat(compose, body)
        if status == 200:
            return engine or "?", seconds
        # The gateway learns within a second or two of an engine that is up.
        if time.monotonic() > deadline:
            raise CliError(
                f"engines are up but the gateway gives no answer about a picture: {said or f'status {status}'}"
            )
        time.sleep(0.3)


def print_next_steps(cluster: PlacedCluster, keys: ApiKeys, config: Path, grafana: bool) -> None:
    """The end of `make up`."""
    base, trust = _address_and_trust(cluster)
    wanted = cluster.gateway.wants_key(keys)
    print_line()
    print_line(f"  The page      {base}/" + ("   (any name, a key as the password)" if wanted else ""))
    print_line(f"  The API       {base}/v1   (OpenAI's; {_keys(keys, wanted, config)})")
    for pool in cluster.served_pools:
        print_line(f"  Model         {pool.name}   ({_about(cluster, pool)})")
    if cluster.controller.expose_api:
        print_line(f"  Operators     {base}/api/docs   (any name, the admin key as the password:")
        print_line(f"                {next_command('admin-key', config=config)})")
    if cluster.monitoring.enabled:
        if grafana:
            print_line(f"  Dashboards    {base}/grafana/")
        print_line(f"  Prometheus    http://127.0.0.1:{cluster.monitoring.prometheus_port}/")
    if cluster.tracing.starts_jaeger:
        print_line(f"  Traces        http://127.0.0.1:{cluster.tracing.jaeger_port}/")
    print_line()
    print_line(f"  curl {trust}{base}/v1/chat/completions \\")
    if wanted:
        print_line("    -H 'Authorization: Bearer YOUR-KEY' \\")
    print_line("    -H 'Content-Type: application/json' \\")
    print_line(f'    -d \'{{"model": "{_first_pool(cluster).name}",')
    print_line('         "messages": [{"role": "user", "content": "Hello"}]}\'')
    print_line()
    if any(pool.is_tiny and not _emulated(cluster, pool) for pool in cluster.served_pools):
        print_warning("the tiny model has random weights: real vLLM answers, and says noise")
    if any(_emulated(cluster, pool) for pool in cluster.served_pools):
        print_warning("engines are emulated: answers are canned text, timings are not a GPU's")
    for action, purpose in (("status", "shows it"), ("logs", "follows it"), ("down", "ends it")):
        print_line(f"  {next_command(action, config=config)}   {purpose}")


def _first_pool(cluster: PlacedCluster) -> Pool:
    """The first one served here; an endpoint elsewhere may cost money."""
    return min(cluster.served_pools, key=lambda pool: pool.remote is not None)


def _address_and_trust(cluster: PlacedCluster) -> tuple[str, str]:
    """The address to show, and what curl needs to trust it."""
    base = gateway_client.address(cluster)
    own = secrets.certificate_path(cluster)
    if own is None:
        return base, ""
    if secrets.is_self_signed(own):
        return base, f"--cacert {from_checkout(own)} "
    if name := secrets.host_name(own):
        base = f"https://{name}:{cluster.gateway.port}"
    return base, ""


def _keys(keys: ApiKeys, wanted: bool, config: Path) -> str:
    names = [key.name for key in keys.keys]
    listed = ", ".join(names[:KEYS_SHOWN]) + (f" and {len(names) - KEYS_SHOWN} more" if len(names) > KEYS_SHOWN else "")
    if wanted:
        return (
            f"keys: {listed}"
            if names
            else f"a key is needed and there is none: {next_command('key', 'alice', config=config)}"
        )
    return f"keys: {listed}; others may ask too" if names else "any key will do"


def _about(cluster: PlacedCluster, pool: Pool) -> str:
    if pool.remote:
        return f"{pool.model}, at {pool.remote.host}"
    count = sum(engine.pool == pool.name for engine in cluster.engines)
    model = "random weights" if pool.is_tiny else pool.model.rsplit("/", 1)[-1]
    kind = "emulated " if _emulated(cluster, pool) else ""
    return f"{kind}{model}, {count} engine{'s' if count > 1 else ''}"


def _emulated(cluster: PlacedCluster, pool: Pool) -> bool:
    return any(engine.flavour == "emulated" for engine in cluster.engines if engine.pool == pool.name)
