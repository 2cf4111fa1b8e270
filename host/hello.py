"""The first request, and how to send the next."""

import json
import time
import urllib.error
import urllib.request
from typing import Any

from config.cluster import Cluster
from config.pools import Pool
from host.terminal import attention, say
from host.trouble import Trouble

PICTURE = "iVBORw0KGgoAAAANSUhEUgAAACAAAAAgCAAAAABWESUoAAAAFklEQVR42mNoIAAYRhWMKhhVMFIVAABCAAAfN5c2AAAAAABJRU5ErkJggg=="
"""A grey PNG of 32 x 32 pixels."""
ATTEMPTS_S = 10.0


def address(cluster: Cluster) -> str:
    """http://host:port of the gateway, as this host reaches it."""
    host = cluster.gateway.host
    near = host.is_loopback or host.is_unspecified
    return f"http://{'localhost' if near else host}:{cluster.gateway.port}"


def first_answer(cluster: Cluster) -> tuple[str, float]:
    """(engine that answered, seconds) for one picture through the gateway. Raises Trouble."""
    pool = cluster.served_pools[0]
    content: list[dict[str, Any]] = [{"type": "text", "text": "What is in this picture?"}]
    if pool.media.images_per_prompt:
        content.insert(0, {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PICTURE}"}})
    body = json.dumps(
        {"model": pool.name, "max_tokens": 8, "messages": [{"role": "user", "content": content}]}
    ).encode()
    url = f"{address(cluster)}/v1/chat/completions"
    deadline = time.monotonic() + ATTEMPTS_S
    while True:
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
        started = time.monotonic()
        try:
            with urllib.request.urlopen(request, timeout=120) as reply:
                reply.read()
                return reply.headers.get("X-ManyEyes-Engine", "?"), time.monotonic() - started
        except (urllib.error.URLError, OSError) as error:
            # The gateway learns within a second or two of an engine that is up.
            if time.monotonic() > deadline:
                said = (
                    error.read().decode(errors="replace") if isinstance(error, urllib.error.HTTPError) else str(error)
                )
                raise Trouble(f"engines are up but the gateway at {url} gives no answer: {said}") from error
            time.sleep(0.3)


def show(cluster: Cluster, grafana: bool) -> None:
    """The end of `make up`."""
    base = address(cluster)
    say()
    say(f"  The page      {base}/")
    say(f"  The API       {base}/v1   (OpenAI's; any key will do)")
    for pool in cluster.served_pools:
        say(f"  Model         {pool.name}   ({_about(cluster, pool)})")
    if cluster.monitoring.enabled:
        if grafana:
            say(f"  Dashboards    {base}/grafana/")
        say(f"  Prometheus    http://127.0.0.1:{cluster.monitoring.prometheus_port}/")
    say()
    say(f"  curl {base}/v1/chat/completions \\")
    say("    -H 'Content-Type: application/json' \\")
    say(f'    -d \'{{"model": "{cluster.served_pools[0].name}",')
    say('         "messages": [{"role": "user", "content": "Hello"}]}\'')
    say()
    if any(pool.is_tiny and not _emulated(cluster, pool) for pool in cluster.served_pools):
        attention("the tiny model has random weights: real vLLM answers, and says noise")
    if any(_emulated(cluster, pool) for pool in cluster.served_pools):
        attention("engines are emulated: answers are canned text, timings are not a GPU's")
    say("  make status shows it, make logs follows it, make down ends it.")


def _about(cluster: Cluster, pool: Pool) -> str:
    count = sum(engine.pool == pool.name for engine in cluster.explicit_engines)
    model = "random weights" if pool.is_tiny else pool.model.rsplit("/", 1)[-1]
    kind = "emulated " if _emulated(cluster, pool) else ""
    return f"{kind}{model}, {count} engine{'s' if count > 1 else ''}"


def _emulated(cluster: Cluster, pool: Pool) -> bool:
    return any(engine.flavour == "emulated" for engine in cluster.explicit_engines if engine.pool == pool.name)
