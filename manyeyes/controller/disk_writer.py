"""Executes disk writes one after the other in one thread, so that a slow or hanging disk never blocks the event loop.

The event loop also answers DNS, and nginx waits only two seconds for an answer.
"""

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future

MAX_PENDING = 1_000
"""With more, the older writes of the same document are dropped, because a hanging disk must not fill the memory."""


class DiskWriter:
    """Its thread is a daemon: a disk that hangs does not delay the exit of the process."""

    def __init__(self) -> None:
        self._pending: deque[tuple[str, Callable[[], bool], Future[bool]]] = deque()
        self._changed = threading.Condition()
        threading.Thread(target=self._run, name="disk-writer", daemon=True).start()

    def submit(self, document: str, write: Callable[[], bool]) -> Future[bool]:
        """Queues `write` and returns its result as a future, which is cancelled when the write is dropped."""
        future: Future[bool] = Future()
        with self._changed:
            if len(self._pending) >= MAX_PENDING:
                dropped = [entry for entry in self._pending if entry[0] == document]
                self._pending = deque(entry for entry in self._pending if entry[0] != document)
                for entry in dropped:
                    entry[2].cancel()
            self._pending.append((document, write, future))
            self._changed.notify()
        return future

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._pending)
                _, write, future = self._pending.popleft()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(write())
            except BaseException as error:
                future.set_exception(error)
