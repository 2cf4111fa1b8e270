"""Waits until all engines are up, sends the first request, and prints how to use the cluster."""

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from manyeyes.cli import gateway_client, network_access, secrets, start_failure
from manyeyes.cli.compose import Compose
from manyeyes.cli.engine_restart import DRAINING, SERVING
from manyeyes.cli.invocation import next_command
from manyeyes.cli.terminal import CliError, Step, print_line, print_warning
from manyeyes.config.checkout import from_checkout
from manyeyes.config.credentials import ApiKeys
from manyeyes.config.placement import PlacedCluster
from manyeyes.config.pools import Pool

UP_STATES = SERVING | {DRAINING, "sleeping"}
"""States of an engine that is up. Autoscaling may drain an engine that Compose has just started, or put it to sleep."""
POLL_S = 0.5
DOWNLOAD_POLL_S = 1.0
MAX_RESTARTS = 3


def wait_until_up(
    cluster: PlacedCluster, compose: Compose, current: Step, deadline_s: float, services: set[str]
) -> None:
    """Waits until these engines are up. A failed engine is reported and ignored if its pool has another engine.

    Raises CliError with the cause of the failure if the pool has no other engine.
    """
    started, remaining = time.monotonic(), set(services)
    while True:
        states = engine_states(cluster)
        up = {name for name in remaining if states.get(name) in UP_STATES}
        current.title = f"starting engines, {len(up)} of {len(services)} up"
        if up == remaining:
            current.outcome = f"{len(up)} engine{'s' if len(up) > 1 else ''} up"
            if remaining != services:
                current.outcome += f", not up: {', '.join(sorted(services - remaining))}"
            return
        if service := find_failed_engine(compose, remaining):
            remaining -= _report_failed_engines(
                cluster, compose, {service}, remaining | up, f"{service} exits repeatedly"
            )
        elif time.monotonic() - started > deadline_s:
            slow = remaining - up
            problem = f"{', '.join(sorted(slow))}: not up within {deadline_s:.0f} s"
            remaining -= _report_failed_engines(cluster, compose, slow, up, problem)
        else:
            time.sleep(POLL_S)


def _report_failed_engines(
    cluster: PlacedCluster, compose: Compose, failed_engines: set[str], others: set[str], problem: str
) -> set[str]:
    """Reports the cause for `failed_engines` and returns it. Raises CliError if one of its pools has no engine in `others`."""
    error = start_failure.explain_failure(compose, min(failed_engines), problem)
    pool_of = {engine.name: engine.pool for engine in cluster.started_engines}
    if {pool_of.get(name) for name in failed_engines} - {pool_of.get(name) for name in others - failed_engines}:
        raise error
    print_warning(error.problems[0])
    return failed_engines


@contextlib.contextmanager
def show_downloads(compose: Compose, current: Step) -> Iterator[None]:
    """Shows the downloader's last line as the note of the step, while Compose waits for the downloader."""
    done = threading.Event()

    def update_note() -> None:
        while not done.wait(DOWNLOAD_POLL_S):
            if any(row["Service"] == "models" and row["State"] == "running" for row in compose.containers()):
                current.note = compose.logs("models", 1).strip()
            else:
                current.note = ""

    thread = threading.Thread(target=update_note, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def engine_states(cluster: PlacedCluster) -> dict[str, str]:
    """Returns {engine: state} as reported by the gateway; empty while it does not answer."""
    pools = gateway_client.healthz(cluster).get("pools", [])
    return {engine["name"]: engine["state"] for pool in pools for engine in pool["engines"]}


def find_failed_engine(compose: Compose, services: set[str]) -> str:
    """Returns the first of `services` whose container has failed too often; empty if there is none."""
    for row in compose.containers():
        service, state = row["Service"], row["State"]
        if (
            service in services
            and state in ("restarting", "dead")
            and any(container["RestartCount"] >= MAX_RESTARTS for container in compose.inspect(service))
        ):
            return str(service)
    return ""


IMAGE_BASE64 = (
    "iVBORw0KGgoAAAANSUhEUgAAACAAAAAgCAAAAABWESUoAAAAFklEQVR42mNoIAAYRhWMKhhVMFIVAABCAAAfN5c2AAAAAABJRU5ErkJggg=="
)
"""A grey PNG of 32 x 32 pixels, in base64."""
ATTEMPTS_S = 10.0
KEYS_SHOWN = 5


def send_first_request(cluster: PlacedCluster, compose: Compose) -> tuple[str, float]:
    """Sends a request with one image through the gateway. Returns (engine, seconds). Raises CliError."""
    pool = _first_pool(cluster)
    content: list[dict[str, Any]] = [{"type": "text", "text": "What is in this image?"}]
    if pool.media.images_per_prompt:
        content.insert(0, {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{IMAGE_BASE64}"}})
    body = json.dumps({"model": pool.name, "max_tokens": 8, "messages": [{"role": "user", "content": content}]})
    deadline = time.monotonic() + ATTEMPTS_S
    while True:
        status, engine, seconds, response = gateway_client.send_chat(compose, body)
        if status == 200:
            return engine or "?", seconds
        # The gateway sends requests to a new engine after a second or two.
        if time.monotonic() > deadline:
            raise CliError(
                f"engines are up, but a request with an image fails: {response or f'status {status}'}. "
                "`make logs` shows the reason."
            )
        time.sleep(0.3)


def print_next_steps(cluster: PlacedCluster, keys: ApiKeys, config: Path, grafana: bool) -> None:
    """Prints the addresses of the cluster and an example request."""
    base_url, trust_option = _address_and_trust(cluster)
    key_required = cluster.gateway.requires_key(keys)
    print_line()
    print_line(f"  Web page      {base_url}/" + ("   (any name, a key as the password)" if key_required else ""))
    for url in network_access.public_urls(cluster):
        print_line(f"  For others    {url}/")
    print_line(f"  API           {base_url}/v1   (OpenAI's; {_describe_keys(keys, key_required, config)})")
    for pool in cluster.served_pools:
        print_line(f"  Model         {pool.name}   ({_describe_pool(cluster, pool)})")
    if cluster.controller.expose_api:
        print_line(f"  Operators     {base_url}/api/docs   (any name, the admin key as the password:")
        print_line(f"                {next_command('admin-key', config=config)})")
    if cluster.monitoring.enabled:
        if grafana:
            print_line(f"  Dashboards    {base_url}/grafana/")
        print_line(f"  Prometheus    http://127.0.0.1:{cluster.monitoring.prometheus_port}/")
    if cluster.tracing.starts_jaeger:
        print_line(f"  Traces        http://127.0.0.1:{cluster.tracing.jaeger_port}/")
    print_line()
    print_line(f"  curl {trust_option}{base_url}/v1/chat/completions \\")
    if key_required:
        print_line("    -H 'Authorization: Bearer YOUR-KEY' \\")
    print_line("    -H 'Content-Type: application/json' \\")
    print_line(f'    -d \'{{"model": "{_first_pool(cluster).name}",')
    print_line('         "messages": [{"role": "user", "content": "Hello"}]}\'')
    print_line()
    if not cluster.gateway.is_open:
        print_line(f"  Only this host can connect. To open it ({network_access.PAST_UFW}):")
        for step in network_access.steps_to_open(config):
            print_line(f"    {step}")
    for warning in network_access.exposure_warnings(cluster, keys, config):
        print_warning(warning)
    if any(pool.is_tiny and not _is_emulated(cluster, pool) for pool in cluster.served_pools):
        print_warning("the tiny model has random weights: vLLM is real, but its answers are random words")
    if any(_is_emulated(cluster, pool) for pool in cluster.served_pools):
        print_warning("engines are emulated: answers are fixed texts, and timings are simulated")
    for action, purpose in (
        ("status", "shows the cluster's state"),
        ("logs", "shows the logs"),
        ("down", "stops the cluster"),
    ):
        print_line(f"  {next_command(action, config=config)}   {purpose}")


def _first_pool(cluster: PlacedCluster) -> Pool:
    """Returns the first pool with local engines, if there is one, because a remote pool may cost money."""
    return min(cluster.served_pools, key=lambda pool: pool.remote is not None)


def _address_and_trust(cluster: PlacedCluster) -> tuple[str, str]:
    """Returns the base URL to print, and curl's option to trust its certificate."""
    base_url = gateway_client.address(cluster)
    certificate = secrets.certificate_path(cluster)
    if certificate is None:
        return base_url, ""
    if secrets.is_self_signed(certificate):
        return base_url, f"--cacert {from_checkout(certificate)} "
    if name := secrets.host_name(certificate):
        base_url = f"https://{name}:{cluster.gateway.port}"
    return base_url, ""


def _describe_keys(keys: ApiKeys, key_required: bool, config: Path) -> str:
    names = [key.name for key in keys.keys]
    shown_names = ", ".join(names[:KEYS_SHOWN]) + (
        f" and {len(names) - KEYS_SHOWN} more" if len(names) > KEYS_SHOWN else ""
    )
    if key_required:
        return (
            f"keys: {shown_names}"
            if names
            else f"a key is required, but there is none: {next_command('key', 'alice', config=config)}"
        )
    return f"keys: {shown_names}; requests without a key are served too" if names else "any key is accepted"


def _describe_pool(cluster: PlacedCluster, pool: Pool) -> str:
    if pool.remote:
        return f"{pool.model}, at {pool.remote.host}"
    count = sum(engine.pool == pool.name for engine in cluster.engines)
    model = "random weights" if pool.is_tiny else pool.model.rsplit("/", 1)[-1]
    kind = "emulated " if _is_emulated(cluster, pool) else ""
    return f"{kind}{model}, {count} engine{'s' if count > 1 else ''}"


def _is_emulated(cluster: PlacedCluster, pool: Pool) -> bool:
    return any(engine.flavour == "emulated" for engine in cluster.engines if engine.pool == pool.name)
