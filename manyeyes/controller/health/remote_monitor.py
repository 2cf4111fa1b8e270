"""Pools that are served elsewhere: whether anybody listens there. One connection is opened and closed; nothing is asked,
so a hosted API charges nothing. The gateway goes on sending requests there whatever is found."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from manyeyes.config.gateway import Controller
from manyeyes.config.hosts import LookupFailed, look_up
from manyeyes.config.pools import Remote
from manyeyes.controller.telemetry import metrics


@dataclass
class Endpoint:
    """One pool's endpoint, and what the last look found."""

    pool: str
    remote: Remote
    reachable: bool | None = None
    """None while it was not looked at."""
    why: str = ""
    """Why not."""
    misses: int = 0
    since: datetime = field(default_factory=lambda: datetime.now(UTC))


async def look(remote: Remote, timeout_s: float) -> str:
    """Empty when something listens there, else what is wrong."""
    try:
        async with asyncio.timeout(timeout_s):
            found = await look_up(remote.host, remote.port)
            _, writer = await asyncio.open_connection(str(found[0]), remote.port)
            writer.close()
    except LookupFailed as error:
        return str(error)
    except TimeoutError:
        return f"{remote.host}:{remote.port} does not answer within {timeout_s:g} s"
    except (OSError, OverflowError):
        return f"nothing listens at {remote.host}:{remote.port}"
    return ""


def judged(endpoint: Endpoint, why: str, rules: Controller) -> str:
    """Takes one look's outcome; one sentence when it changes what is known."""
    endpoint.misses = endpoint.misses + 1 if why else 0
    if why and endpoint.reachable and endpoint.misses < rules.fall:
        return ""
    before, endpoint.reachable, endpoint.why = endpoint.reachable, not why, why
    metrics.REMOTE_REACHABLE.labels(endpoint.pool).set(endpoint.reachable)
    if before is endpoint.reachable:
        return ""
    endpoint.since = datetime.now(UTC)
    return f"cannot be reached: {why}" if why else "can be reached"


async def watch(endpoint: Endpoint, rules: Callable[[], Controller], tell: Callable[[str], None]) -> None:
    """Looks at it until cancelled."""
    while True:
        why = await look(endpoint.remote, rules().connect_timeout_s + 3)
        if sentence := judged(endpoint, why, rules()):
            tell(sentence)
        in_doubt = bool(why) and endpoint.misses < rules().fall
        await asyncio.sleep(1 if in_doubt else rules().remote_interval_s)
