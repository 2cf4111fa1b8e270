"""Engines of one GPU start one after the other: `one_at_a_time.py LOCK... -- PROGRAM...` runs the program once it has the locks.

vLLM measures how much GPU memory is free before and after it loads, for the whole GPU: what another engine takes in the
meantime is charged to it, and both end (vllm-project/vllm#55827). Whoever starts an engine, Compose, Docker after a crash,
or the controller, starts it through this.

The locks are files in a volume that all engines of a host share, one for each GPU. A process beside the program holds them
and lets go when the engine is healthy; the kernel lets go when either of them ends.
"""

import fcntl
import os
import sys
import time
import urllib.request
from pathlib import Path

HEALTH = "http://127.0.0.1:8000/health"
ASK_EVERY_S = 1.0
ASK_TIMEOUT_S = 5.0


def main(arguments: list[str]) -> None:
    """Does not return: becomes the program."""
    end = arguments.index("--")
    files = [_locked(path) for path in sorted(arguments[:end])]  # in one order, or two engines wait for each other
    program = arguments[end + 1 :]
    parent = os.getpid()
    if os.fork() == 0:
        _hold(parent)
        os._exit(0)
    for file in files:
        os.close(file)
    os.execvp(program[0], program)


def _locked(path: str) -> int:
    """The open file, once no other engine has it locked. A signal ends the wait."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print(f"Another engine is starting on this GPU: waiting for {path}", flush=True)
        fcntl.flock(file, fcntl.LOCK_EX)
    return file


def _hold(parent: int) -> None:
    """Until the engine answers, or is gone."""
    while os.getppid() == parent and not _is_healthy():
        time.sleep(ASK_EVERY_S)


def _is_healthy() -> bool:
    try:
        with urllib.request.urlopen(os.environ.get("MANYEYES_HEALTH", HEALTH), timeout=ASK_TIMEOUT_S) as reply:
            return bool(reply.status == 200)
    except (OSError, ValueError):
        return False


if __name__ == "__main__":
    main(sys.argv[1:])
