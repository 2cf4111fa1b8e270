"""Restarts the controller's long-running tasks after an unexpected exception, which is logged and counted.

One invalid response, file or address must not stop the process that answers DNS. A cancelled task is not restarted.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable

import structlog

from manyeyes.controller import metrics

log = structlog.get_logger()
PAUSE_S = 1.0
"""Pause before the first restart. It doubles with each restart in a row, up to MAX_PAUSE_S."""
MAX_PAUSE_S = 30.0
WORKED_S = 60.0
"""After a run of this time, an exception counts as the first again."""


async def keep_running(task: str, start: Callable[[], Awaitable[None]], **fields: str) -> None:
    """Runs `start()` until it returns or is cancelled. `task` is its name in the log and in the metric."""
    pause_s = PAUSE_S
    while True:
        began_s = time.monotonic()
        try:
            return await start()
        except Exception:
            record_failure(task, **fields)
        if time.monotonic() - began_s >= WORKED_S:
            pause_s = PAUSE_S
        await asyncio.sleep(pause_s)
        pause_s = min(2 * pause_s, MAX_PAUSE_S)


def record_failure(task: str, **fields: str) -> None:
    """Logs and counts the current exception. Call it in an `except` block."""
    metrics.TASK_FAILURES.labels(task).inc()
    log.exception("task_failed", task=task, **fields)
