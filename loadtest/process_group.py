"""Processes that a measurement starts: each in a session of its own, counted as a whole, and ended with all it started."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path


@contextlib.contextmanager
def start_process_group(
    command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None, cwd: Path | None = None
) -> Iterator[int]:
    """Runs `command` with its output in `log`; yields the id of its session. Ends the whole session, in 5 s at most."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
            cwd=cwd,
            start_new_session=True,
        )
    try:
        yield process.pid
    finally:
        _end(process)


def _end(process: "subprocess.Popen[bytes]") -> None:
    for number, patience_s in ((signal.SIGTERM, 2.0), (signal.SIGKILL, 3.0)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        deadline = time.monotonic() + patience_s
        while time.monotonic() < deadline:
            process.poll()
            left = members(process.pid)
            if not left:
                process.wait(timeout=patience_s)
                return
            time.sleep(0.02)
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)


def members(session: int) -> list[int]:
    """Ids of the living processes of a session, whoever their parents are."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(fields[3]) == session and fields[0] not in "ZX":
                    found.append(int(entry.name))
    return found


def cpu_s(sessions: Sequence[int]) -> float:
    """CPU time of all processes of these sessions so far, in seconds, with all their threads, to the nanosecond.

    /proc/<pid>/stat counts in steps of 10 ms, which is too coarse for what costs 20 µs. Linux has a clock for each
    process (clock_getcpuclockid(3)): the id with its bits turned, and 2 for time on the scheduler's books.
    """
    total = 0.0
    for session in sessions:
        for pid in members(session):
            with contextlib.suppress(OSError):
                total += time.clock_gettime((~pid << 3) | 2)
    return total


def memory_mb(sessions: Sequence[int]) -> float:
    """Resident memory of all processes of these sessions in MiB; pages they share are counted once (PSS)."""
    total = 0
    for session in sessions:
        for pid in members(session):
            with contextlib.suppress(OSError):
                for line in (Path("/proc") / str(pid) / "smaps_rollup").read_text().splitlines():
                    if line.startswith("Pss:"):
                        total += int(line.split()[1])
    return total / 1024
