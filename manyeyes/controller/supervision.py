"""Long tasks of the controller go on after an exception that nobody foresaw: it is logged and counted, and the task begins anew.

One wrong answer, file or address must not end the process that answers DNS. A cancelled task ends, as it should.
"""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from manyeyes.controller import metrics

log = structlog.get_logger()
PAUSE_S = 1.0
"""An exception that comes back at once is logged once a second."""


async def keep_running(task: str, start: Callable[[], Awaitable[None]], **fields: str) -> None:
    """Until `start()` returns or this is cancelled. `task` names it in the log and in the metric."""
    while True:
        try:
            return await start()
        except Exception:
            record_failure(task, **fields)
        await asyncio.sleep(PAUSE_S)


def record_failure(task: str, **fields: str) -> None:
    """To be called where an exception is handled."""
    metrics.TASK_FAILURES.labels(task).inc()
    log.exception("task_failed", task=task, **fields)
