"""Restarts the controller's long-running tasks after an unexpected exception, which is logged and counted.

One invalid response, file or address must not stop the process that answers DNS. A cancelled task is not restarted.
"""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from manyeyes.controller import metrics

log = structlog.get_logger()
PAUSE_S = 1.0
"""Pause before a restart, so that a repeated exception is logged only once a second."""


async def keep_running(task: str, start: Callable[[], Awaitable[None]], **fields: str) -> None:
    """Runs `start()` until it returns or is cancelled. `task` is its name in the log and in the metric."""
    while True:
        try:
            return await start()
        except Exception:
            record_failure(task, **fields)
        await asyncio.sleep(PAUSE_S)


def record_failure(task: str, **fields: str) -> None:
    """Logs and counts the current exception. Call it in an `except` block."""
    metrics.TASK_FAILURES.labels(task).inc()
    log.exception("task_failed", task=task, **fields)
