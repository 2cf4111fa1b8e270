"""Starts the engines of one GPU one after the other: `one_at_a_time.py LOCK... -- PROGRAM...` runs the program with the
locks.

vLLM measures the free memory of the whole GPU before and after it loads. It counts memory that another engine allocates
during this time as its own, and both engines exit (vllm-project/vllm#55827). Compose, Docker's restart after a crash
and the controller all start an engine through this script.

The locks are files in a folder that only engines which share a GPU mount, one for each GPU. A child process holds them and
releases them when the engine is healthy. The kernel releases them when either process exits.
"""

import fcntl
import os
import sys
import time
import urllib.request
from pathlib import Path

HEALTH = "http://127.0.0.1:8000/health"
POLL_INTERVAL_S = 1.0
HEALTH_TIMEOUT_S = 5.0


def main(arguments: list[str]) -> None:
    """Replaces this process with the program, and so does not return."""
    separator = arguments.index("--")
    files = [_lock(path) for path in sorted(arguments[:separator])]  # always in the same order, to prevent a deadlock
    program = arguments[separator + 1 :]
    parent = os.getpid()
    if os.fork() == 0:
        _wait_until_healthy(parent)
        os._exit(0)
    for file in files:
        os.close(file)
    os.execvp(program[0], program)


def _lock(path: str) -> int:
    """Waits for the lock and returns the open file. A signal interrupts the wait."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print(f"Another engine starts on this GPU: waiting for {path}", flush=True)
        fcntl.flock(file, fcntl.LOCK_EX)
    return file


def _wait_until_healthy(parent: int) -> None:
    """Waits until the engine is healthy or has exited."""
    while os.getppid() == parent and not _is_healthy():
        time.sleep(POLL_INTERVAL_S)


def _is_healthy() -> bool:
    try:
        with urllib.request.urlopen(os.environ.get("MANYEYES_HEALTH", HEALTH), timeout=HEALTH_TIMEOUT_S) as response:
            return bool(response.status == 200)
    except (OSError, ValueError):
        return False


if __name__ == "__main__":
    main(sys.argv[1:])
